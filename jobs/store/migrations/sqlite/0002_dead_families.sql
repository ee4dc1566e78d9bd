-- A family is declared dead before its rows are touched, and cannot beat again from then on.
ALTER TABLE families ADD COLUMN died_at INTEGER;

PRAGMA user_version = 2;
