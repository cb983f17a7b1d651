"""Another migration tool is recognized by names, markers, folders and history tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from initmig.migrations.foreign import (
    GUIDES,
    HISTORY_TABLES,
    guide,
    marker_in,
    marks_in,
    tool_of_folder,
    tool_of_name,
    tool_of_table,
)
from initmig.sql.source import Source

REPOSITORY = Path(__file__).parents[2]


def source_of(text: str) -> Source:
    return Source("a.sql", text.encode(), find_marks=marks_in)


@pytest.mark.parametrize(
    ("tool", "page"),
    [
        ("dbmate", "from-dbmate"),
        ("dbmate or Rails", "from-dbmate"),
        ("golang-migrate or sqlx", "from-golang-migrate"),
        ("Ecto", "from-ecto"),
        ("Flyway or yandex-pgmigrate", "from-flyway"),
        ("Diesel or Hasura", "adopt-a-database"),
        ("Entity Framework", "adopt-a-database"),
    ],
)
def test_each_tool_has_a_guide(tool: str, page: str) -> None:
    assert guide(tool) == f"docs/how-to/{page}.md"
    assert (REPOSITORY / guide(tool)).is_file()


def test_every_guide_belongs_to_a_tool() -> None:
    pages = (REPOSITORY / "docs" / "how-to").glob("from-*.md")
    assert sorted(page.stem for page in pages) == [f"from-{tool}" for tool in sorted(GUIDES)]


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("0001_users.up.sql", "golang-migrate or sqlx"),
        ("20240101120000_users.down.sql", "golang-migrate or sqlx"),
        ("V1__users.sql", "Flyway"),
        ("V1_10__users.sql", "Flyway"),
        ("V13.1__users.sql", "Flyway"),
        ("V6.0_2015.03.07__users.sql", "Flyway"),
        ("U2__users.sql", "Flyway"),
        ("B1__baseline.sql", "Flyway"),
        ("R__view.sql", "Flyway"),
    ],
)
def test_file_of_another_tool_is_recognized_by_its_name(name: str, tool: str) -> None:
    assert tool_of_name(name) == tool


@pytest.mark.parametrize(
    "name",
    [
        *("0001_users.sql", "0001_users.rollback.sql", "V1_users.sql", "Vx__users.sql"),
        *("v1__users.sql", "0001_V1__users.sql", "R_view.sql", "users.update.sql", "backup.sql"),
        *("20240101_01_AbCdE-users.sql", "Version1__users.sql"),
    ],
)
def test_yoyo_style_file_name_belongs_to_no_other_tool(name: str) -> None:
    assert tool_of_name(name) == ""


@pytest.mark.parametrize(
    ("line", "tool"),
    [
        ("-- +goose Up", "goose"),
        ("--+goose Down", "goose"),
        ("-- +goose no transaction", "goose"),
        ("-- +goose StatementBegin", "goose"),
        ("-- migrate:up", "dbmate"),
        ("-- migrate:up transaction:false", "dbmate"),
        ("--migrate:down", "dbmate"),
        ("-- +migrate Up notransaction", "sql-migrate"),
        ("-- Up Migration", "node-pg-migrate"),
        ("-- Down Migration", "node-pg-migrate"),
        ("---- create above / drop below ----", "tern"),
        ("--liquibase formatted sql", "Liquibase"),
        ("-- liquibase formatted SQL logicalFilePath:x", "Liquibase"),
        ("-- rambler up", "rambler"),
        ("-- Deploy flipr:users to pg", "sqitch"),
        ("-- Revert flipr:users from pg", "sqitch"),
        ("--! Previous: sha1:abc", "graphile-migrate"),
        ("-- //@UNDO", "MyBatis Migrations"),
        ("--// @UNDO", "MyBatis Migrations"),
        ("-- !Downs", "Play evolutions"),
    ],
)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "\nCREATE TABLE t ();\n"),
        ("  \t", ""),
        ("CREATE TABLE t ();\n", "\nDROP TABLE t;\n"),
        ("CREATE TABLE t (\n", "\na int);"),
        ("CREATE TABLE t ()\r\n", "\r\nDROP TABLE t"),
        ("SELECT ';', $$a$$; /* one\n two */\n", "\n"),
    ],
    ids=["first", "indented", "between", "inside a statement", "CRLF", "after a comment"],
)
def test_marker_on_its_own_line_is_found(line: str, tool: str, before: str, after: str) -> None:
    marker = marker_in(source_of(f"{before}{line}{after}"))
    assert marker
    assert (marker.tool, marker.offset) == (tool, len(before))


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO notes VALUES ('\n-- +goose Up\n')",
        "DO $body$\n-- migrate:up\n$body$",
        "/*\n-- +migrate Down\n*/ SELECT 1",
        'SELECT 1 AS "\n-- rambler up\n"',
        "COPY t FROM stdin;\n-- +goose Up\n\\.\n",
        "SELECT 1; -- +goose Up",
        "-- we came from goose: +goose Up stood here",
        "-- migrate the rows up",
        "-- up migration of the users",
        "-- Deploy this with the application: see the wiki",
        "",
    ],
)
def test_marker_in_a_literal_or_in_prose_is_ignored(text: str) -> None:
    assert marker_in(source_of(text)) is None


@pytest.mark.parametrize(
    ("names", "tool", "shown"),
    [
        (["sqitch.plan", "deploy", "deploy/users.sql"], "sqitch", ["sqitch.plan"]),
        (["atlas.sum"], "Atlas", ["atlas.sum"]),
        (
            ["20240101_init", "20240101_init/migration.sql"],
            "Prisma",
            ["20240101_init/migration.sql"],
        ),
        (["migration_lock.toml"], "Prisma", ["migration_lock.toml"]),
        (["1_users", "1_users/down.sql", "1_users/up.sql"], "Diesel or Hasura", ["1_users/up.sql"]),
        (["20240101_users.exs"], "Ecto", ["20240101_users.exs"]),
    ],
)
def test_folder_of_another_tool_is_recognized_by_its_files(
    names: list[str], tool: str, shown: list[str]
) -> None:
    assert tool_of_folder(["README.md", *names]) == (tool, tuple(shown))


def test_folder_with_other_files_belongs_to_no_other_tool() -> None:
    assert tool_of_folder(["README.md", "old", "old/0001_users.sql", "seed.csv"]) == ("", ())


@pytest.mark.parametrize(
    ("name", "columns", "tool"),
    [
        ("schema_migrations", "version dirty", "golang-migrate"),
        ("schema_migrations", "version inserted_at", "Ecto"),
        ("schema_migrations", "version", "dbmate or Rails"),
        ("schema_version", "version", "tern"),
        ("schema_version", "version description type installed_on", "Flyway or yandex-pgmigrate"),
        ("schema_version", "id", ""),
        ("migrations", "id timestamp name", "TypeORM"),
        ("migrations", "id migration batch", "Laravel"),
        ("migrations", "id from_country to_country", ""),
        ("users", "version dirty", ""),
    ],
)
def test_history_is_recognized_by_its_name_and_columns(name: str, columns: str, tool: str) -> None:
    assert tool_of_table(name, columns.split()) == tool


def test_yoyo_and_initmig_are_not_among_the_other_tools() -> None:
    assert not {"_yoyo_migration", "_yoyo_log", "yoyo_lock", "_initmig_migration"} & {
        *HISTORY_TABLES
    }
