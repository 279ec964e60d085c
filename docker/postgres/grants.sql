-- What the services may do with the ledger. Its owner runs this after it has made or migrated the tables, at each start
-- of the stack (docker/prepare.py). Nobody but the owner may change or remove a row, a table or a trigger.
BEGIN;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, ledger_worker, ledger_reviewer, ledger_scorer;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM PUBLIC, ledger_worker, ledger_reviewer, ledger_scorer;
GRANT USAGE ON SCHEMA public TO ledger_worker, ledger_reviewer, ledger_scorer;

-- Workers, reviewers and the watcher (as a reviewer) read and append.
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO ledger_worker, ledger_reviewer;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO ledger_worker, ledger_reviewer; -- nextval, not setval
-- The scorer reads what a replay of the promotions needs.
GRANT SELECT ON ALL TABLES IN SCHEMA public TO ledger_scorer;

-- The operator alone changes the policy, enrols reviewers and migrates. Secrets of reviewers' authenticators are read
-- where their codes are checked: whoever reads them can make codes.
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['policies', 'enrolments', 'schema_versions', 'alembic_version'] LOOP
        IF to_regclass('public.' || name) IS NOT NULL THEN
            EXECUTE format('REVOKE INSERT ON public.%I FROM ledger_worker, ledger_reviewer', name);
        END IF;
    END LOOP;
    FOREACH name IN ARRAY ARRAY['enrolments', 'used_codes'] LOOP
        EXECUTE format('REVOKE ALL ON public.%I FROM ledger_worker, ledger_scorer', name);
    END LOOP;
    -- A reviewer's yes is written where reviews are answered.
    REVOKE INSERT ON public.approvals FROM ledger_worker;
END $$;
COMMIT;
