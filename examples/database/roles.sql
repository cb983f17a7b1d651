-- Two roles for an app's database: one that owns the tables and migrates, one for the app. Run this once, as a superuser or the owner of the database:
--   psql -d app -v database=app -v owner=app_owner -v app=app -v owner_password=… -v app_password=… -f roles.sql
-- With -v schema=shop, the tables are in the schema `shop` instead of `public`.
-- With -v history=initmig, the app can also write to every table that the migrations will create, except for initmig's history. That is then in
-- the schema `initmig`, so set INITMIG_HISTORY_SCHEMA=initmig.
\set ON_ERROR_STOP on
\if :{?schema}
\else
  \set schema public
\endif

BEGIN;
CREATE ROLE :"owner" LOGIN PASSWORD :'owner_password';
CREATE ROLE :"app" LOGIN PASSWORD :'app_password';

-- By default, every role of the server can connect to every database, and create temporary tables there.
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT, CREATE, TEMPORARY ON DATABASE :"database" TO :"owner";
GRANT CONNECT ON DATABASE :"database" TO :"app";

-- Up to PostgreSQL 14, and in databases upgraded from there, every role can create objects in `public`. A planted function with the right name
-- would then run with the privileges of the role that calls it, including the owner (CVE-2018-1058).
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA IF NOT EXISTS :"schema";
GRANT USAGE, CREATE ON SCHEMA :"schema" TO :"owner";
GRANT USAGE ON SCHEMA :"schema" TO :"app";

-- Look up names only in this schema. The default, "$user", public, would also find a schema that has the role's name.
ALTER ROLE :"owner" IN DATABASE :"database" SET search_path = :"schema";
ALTER ROLE :"app" IN DATABASE :"database" SET search_path = :"schema";

-- SELECT on everything that the migrations will create, including initmig's history. `initmig wait` needs no more.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema" GRANT SELECT ON TABLES TO :"app";
\if :{?history}
  CREATE SCHEMA IF NOT EXISTS :"history";
  GRANT USAGE, CREATE ON SCHEMA :"history" TO :"owner";
  GRANT USAGE ON SCHEMA :"history" TO :"app";
  ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"history" GRANT SELECT ON TABLES TO :"app";
  ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema" GRANT INSERT, UPDATE, DELETE ON TABLES TO :"app";
  ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema" GRANT USAGE ON SEQUENCES TO :"app";
\endif
-- Without a separate history, a default would let the app write to the history, too. Grant INSERT, UPDATE and DELETE in a migration, table by table.
COMMIT;
