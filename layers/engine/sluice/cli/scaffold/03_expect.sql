-- no_order_left_claimed
-- no row keeps the flag after the run
SELECT order_id FROM public.__pack___orders WHERE update_flag = 1
;

-- every_item_has_a_price
-- no order is without a total because the price list lacks its item
-- severity: warning
SELECT order_id FROM public.__pack___orders WHERE ordered_on >= :since::date AND total IS NULL
;
