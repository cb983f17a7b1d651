"""The names in initmig's own SQL, which no schema of the user's search path is to give a meaning.

Whoever may create objects in one of these schemas could else have the migrator run code: what a
name stands for is looked up there, and an exact match goes before PostgreSQL's own.
https://wiki.postgresql.org/wiki/A_Guide_to_CVE-2018-1058:_Protect_Your_Search_Path
"""

_SETTING = "initmig.search_path"

USER_PATH = f"pg_catalog.current_setting('{_SETTING}')"
"""SQL for the user's search path, behind `SAVE_PATH`."""

SAVE_PATH = (
    f"SELECT pg_catalog.set_config('{_SETTING}', pg_catalog.current_setting('search_path'), true);"
)
"""The SQL that notes the user's search path, to the end of the transaction."""

# pg_temp last, or a temporary table would go before one of the catalog.
PIN_PATH = f"{SAVE_PATH}SET LOCAL search_path = pg_catalog, pg_temp;"
"""The SQL behind which names are PostgreSQL's own, to the end of the transaction."""

RESTORE_PATH = f"SELECT pg_catalog.set_config('search_path', {USER_PATH}, true)"
"""The SQL that brings the user's search path back in the same transaction."""
