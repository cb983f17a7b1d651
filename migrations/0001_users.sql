-- Users sign in with their e-mail address.

CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL,
    full_name text NOT NULL,
    nickname text,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Addresses that differ only in case belong to the same person.
CREATE UNIQUE INDEX users_email_key ON users (lower(email));
