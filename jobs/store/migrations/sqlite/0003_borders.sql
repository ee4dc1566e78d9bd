-- The last claim of each owner, written in the turn that claimed: whose COMMIT was not answered finds here
-- whether it happened.
ALTER TABLE owners ADD COLUMN claim INTEGER NOT NULL DEFAULT 0;

PRAGMA user_version = 3;
