-- make_prices
-- the price list that totals are worked out from
CREATE TABLE IF NOT EXISTS public.__pack___prices (
    item text PRIMARY KEY,
    price numeric(10, 2) NOT NULL
)
;

-- make_orders
-- the table whose totals are updated: update_flag is 1 while a run has claimed a row, updated_at keeps the run
CREATE TABLE IF NOT EXISTS public.__pack___orders (
    order_id bigint PRIMARY KEY,
    ordered_on date NOT NULL,
    customer text,
    item text NOT NULL,
    pieces integer NOT NULL,
    total numeric(12, 2),
    update_flag smallint,
    updated_at timestamptz
)
;

-- make_key_index
-- chunks are cut by day and customer, in this order
CREATE INDEX IF NOT EXISTS __pack___orders_key ON public.__pack___orders (ordered_on, customer)
;

-- fill_prices
-- ten items
INSERT INTO public.__pack___prices (item, price)
SELECT 'item ' || n, 5 + n * 1.25 FROM generate_series(1, 10) AS n
ON CONFLICT DO NOTHING
;

-- fill_orders
-- 3,000 orders of 90 days; some have no customer
INSERT INTO public.__pack___orders (order_id, ordered_on, customer, item, pieces)
SELECT n, :since::date + n % 90, CASE WHEN n % 50 > 0 THEN 'customer ' || n % 40 END, 'item ' || 1 + n % 10, 1 + n % 15
FROM generate_series(1, 3000) AS n
ON CONFLICT DO NOTHING
;
