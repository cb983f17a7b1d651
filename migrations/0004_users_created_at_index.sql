-- Does not block writers. This is only possible outside of a transaction.
-- transactional: false
-- depends: 0001_users

CREATE INDEX CONCURRENTLY users_created_at_idx ON users (created_at);
