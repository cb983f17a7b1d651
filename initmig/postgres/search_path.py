"""Keep the user's search path from changing the meaning of names in initmig's SQL.

Names are looked up in the schemas of the search path, and an exact match wins over PostgreSQL's
function. A role that can create objects in such a schema could make the migrator run its code.
https://wiki.postgresql.org/wiki/A_Guide_to_CVE-2018-1058:_Protect_Your_Search_Path
"""

_SETTING = "initmig.search_path"

USER_PATH = f"pg_catalog.current_setting('{_SETTING}')"
"""SQL expression for the user's search path, after `SAVE_PATH`."""

SAVE_PATH = (
    f"SELECT pg_catalog.set_config('{_SETTING}', pg_catalog.current_setting('search_path'), true);"
)
"""SQL that saves the user's search path until the transaction ends."""

# pg_temp comes last, because otherwise a temporary table would hide a table of the catalog.
PIN_PATH = f"{SAVE_PATH}SET LOCAL search_path = pg_catalog, pg_temp;"
"""SQL that limits names to PostgreSQL's until the transaction ends."""

RESTORE_PATH = f"SELECT pg_catalog.set_config('search_path', {USER_PATH}, true)"
"""SQL that restores the user's search path in the same transaction."""
