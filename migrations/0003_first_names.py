"""Give every user a first name to be greeted with: the first word of the full name."""

from yoyo import step

__depends__ = {"0001_users"}


def fill_first_names(connection):
    """Work in batches, because a large table does not fit into memory."""
    with connection.cursor() as cursor:
        while True:
            cursor.execute(
                """
                UPDATE users SET first_name = split_part(full_name, ' ', 1)
                WHERE id IN (SELECT id FROM users WHERE first_name IS NULL LIMIT 1000)
                """
            )
            if cursor.rowcount == 0:
                break


def nothing_to_undo(connection):
    """Dropping the column, in the first step, is enough."""


steps = [
    step(
        "ALTER TABLE users ADD COLUMN first_name text",
        "ALTER TABLE users DROP COLUMN first_name",
    ),
    step(fill_first_names, nothing_to_undo),
]
