-- Two roles for an app's database: one that owns the tables and migrates, one that the app uses. Once, as an administrator:
--   psql -d app -v database=app -v owner=app_owner -v app=app -v owner_password=… -v app_password=… -f roles.sql

CREATE ROLE :"owner" LOGIN PASSWORD :'owner_password';
CREATE ROLE :"app" LOGIN PASSWORD :'app_password';
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT, CREATE, TEMPORARY ON DATABASE :"database" TO :"owner";
GRANT CONNECT ON DATABASE :"database" TO :"app";
GRANT USAGE, CREATE ON SCHEMA public TO :"owner";
GRANT USAGE ON SCHEMA public TO :"app";

-- SELECT on whatever the migrations will create, initmig's history among it: all that `initmig wait` needs.
-- An app that writes gets its INSERT, UPDATE and DELETE in a migration, table by table.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT SELECT ON TABLES TO :"app";
-- Or grant them by default, too: `initmig doctor --app-role app` prints the statements.
