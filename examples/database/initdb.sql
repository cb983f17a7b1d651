-- Creates the roles of the example. PostgreSQL's image runs this once, as its superuser, while its volume is empty.
-- Read by the server: an unreadable file is an error, and no password is in a command line or the environment.
\set ON_ERROR_STOP on
SELECT rtrim(pg_read_file('/run/secrets/owner_password'), E'\r\n') AS owner_password,
       rtrim(pg_read_file('/run/secrets/app_password'), E'\r\n') AS app_password \gset
\set database :DBNAME
\set owner app_owner
\set app app
\set history initmig
\i /roles.sql
