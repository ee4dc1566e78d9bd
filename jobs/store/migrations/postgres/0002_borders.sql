-- The last claim of each owner, written in the turn that claimed: whose COMMIT was not answered finds here
-- whether it happened.
ALTER TABLE {schema}.owners ADD COLUMN claim bigint NOT NULL DEFAULT 0;
