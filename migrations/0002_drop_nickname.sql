-- Nobody filled in a nickname, and no released application reads it any more.
-- An application that still does could not live with this: it would be marked `breaking: true`.
-- depends: 0001_users

ALTER TABLE users DROP COLUMN nickname;
