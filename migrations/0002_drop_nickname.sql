-- No user has a nickname, and no released application reads the column.
-- If one still did, this would break it, and the file would be marked `breaking: true`.
-- depends: 0001_users

ALTER TABLE users DROP COLUMN nickname;
