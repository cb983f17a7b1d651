-- Two roles for an app's database: one that owns the tables and migrates, one that the app uses. Once, as a superuser or the owner of the database:
--   psql -d app -v database=app -v owner=app_owner -v app=app -v owner_password=… -v app_password=… -f roles.sql
-- With -v schema=shop, the tables go into a schema of their own in place of `public`.
\set ON_ERROR_STOP on
\if :{?schema}
\else
  \set schema public
\endif

BEGIN;
CREATE ROLE :"owner" LOGIN PASSWORD :'owner_password';
CREATE ROLE :"app" LOGIN PASSWORD :'app_password';

-- By default, every role of the server may connect to every database, and create temporary tables there.
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT, CREATE, TEMPORARY ON DATABASE :"database" TO :"owner";
GRANT CONNECT ON DATABASE :"database" TO :"app";

-- Up to PostgreSQL 14, and in databases upgraded from there, every role may create objects in `public`. A function with a well-chosen name would
-- then run with the privileges of whoever calls it, also of the owner (CVE-2018-1058).
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA IF NOT EXISTS :"schema";
GRANT USAGE, CREATE ON SCHEMA :"schema" TO :"owner";
GRANT USAGE ON SCHEMA :"schema" TO :"app";

-- Names are looked up in this schema alone. The default, "$user", public, would also find a schema that is called like the role.
ALTER ROLE :"owner" IN DATABASE :"database" SET search_path = :"schema";
ALTER ROLE :"app" IN DATABASE :"database" SET search_path = :"schema";

-- SELECT on whatever the migrations will create, initmig's history among it: all that `initmig wait` needs.
-- An app that writes gets its INSERT, UPDATE and DELETE in a migration, table by table.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema" GRANT SELECT ON TABLES TO :"app";
-- Or grant them by default, too: `initmig doctor --app-role app` prints the statements.
COMMIT;
