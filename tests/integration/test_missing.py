"""Which tables pending SQL uses that are not there: the server says the same of each case."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.unit.test_missing import FINE, USES

if TYPE_CHECKING:
    from tests.support.databases import Database

# What tests.unit.test_missing has as an inventory.
SETUP = """
CREATE SCHEMA app;
CREATE TABLE users (a int PRIMARY KEY, b int, c int);
CREATE TABLE app.orders ();
CREATE VIEW orders_total AS SELECT 1 AS x;
CREATE TABLE audited (a int);
CREATE TABLE "Mixed" ();
CREATE TABLE _yoyo_migration ();
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE TRIGGER t BEFORE INSERT ON audited FOR EACH ROW EXECUTE FUNCTION f();
CREATE FUNCTION make_tables() RETURNS int LANGUAGE plpgsql
    AS 'BEGIN CREATE TABLE nope (); RETURN 1; END';
CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN CREATE TABLE nope (); END';
CREATE FOREIGN DATA WRAPPER w;
CREATE SERVER s FOREIGN DATA WRAPPER w"""
UNDEFINED_TABLE = "42P01"
NOT_TOLD = ("after ", "a sequence of which nobody knows")
"""Cases in which the table could be there, for all that is known."""


@pytest.mark.any_version
def test_the_server_says_the_same(database: Database) -> None:
    database.execute(SETUP)
    cases = {**USES, **{name: sql for name, sql in FINE.items() if not name.startswith(NOT_TOLD)}}
    refused = set()
    with database.connect(autocommit=False) as connection:
        for name, sql in cases.items():
            try:
                connection.execute(sql.replace(" TO x", " TO postgres").encode())
            except psycopg.Error as error:
                refused |= {name} if error.sqlstate == UNDEFINED_TABLE else set()
            connection.rollback()
    assert refused == USES.keys()
