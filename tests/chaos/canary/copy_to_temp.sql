-- copy_to_temp
-- A copy of the keys, as the conflict report makes one.
INSERT INTO canary.visits_copy SELECT * FROM canary.visits;
