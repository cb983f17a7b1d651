"""Explains parts of a connection string that libpq does not know, and how to replace them.

Imported only if there is such a part. Names that another program uses are shown. Other names are
shown only if they cannot be part of a password.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from initmig.core.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SSLMODE = "write sslmode instead, such as sslmode=require or sslmode=verify-full"
_ROOT = "write sslrootcert=FILE instead, or sslrootcert=system for the system's authorities"
_CLIENT_CERT = "write sslcert=FILE and sslkey=FILE instead, with files in PEM"
_POOL = "leave it out: it configures a connection pool, and initmig has none"
_PREPARED = "leave it out: initmig prepares no statements"
_DRIVER = "leave it out: it is for another program"
_SCHEMA = "leave it out, and name the schema with --schema or INITMIG_SCHEMA"
_HOSTS = "write target_session_attrs instead, such as target_session_attrs=read-write"
_TIMEOUT = "write connect_timeout instead, in whole seconds"
_ENDLESS = "leave it out, and set --statement-timeout or --wait-timeout"
_KEEPALIVE = "write keepalives, keepalives_idle, keepalives_interval and keepalives_count instead"
_KERBEROS = "write krbsrvname, gssencmode or gssdelegation instead"
_VARIABLE = "set the variable to the text after the =, without the name"

_TOOLS: Mapping[str, Mapping[str, str]] = {
    "PostgreSQL, as a setting": {
        "search_path": _SCHEMA,
        "role": "leave it out, and name the role with --role",
        "lock_timeout": "leave it out, and set --lock-timeout",
        "statement_timeout": "leave it out, and set --statement-timeout",
        "timezone datestyle": "leave it out, and set it in the migrations that depend on it",
        "idle_in_transaction_session_timeout": "leave it out: initmig sets it to 0",
    },
    "JDBC": {
        "currentSchema": _SCHEMA,
        "ssl": _SSLMODE,
        "sslfactory sslfactoryarg sslhostnameverifier sslpasswordcallback": _SSLMODE,
        "sslResponseTimeout": _TIMEOUT,
        "ApplicationName": "write application_name instead",
        "connectTimeout loginTimeout": _TIMEOUT,
        "socketTimeout cancelSignalTimeout queryTimeout": _ENDLESS,
        "tcpKeepAlive": _KEEPALIVE,
        "targetServerType": _HOSTS,
        "loadBalanceHosts": "write load_balance_hosts=random instead",
        "hostRecheckSeconds": _DRIVER,
        "gssEncMode": "write gssencmode instead",
        "kerberosServerName jaasApplicationName jaasLogin useSpnego gsslib sspiServiceClass"
        " gssUseDefaultCreds": _KERBEROS,
        "channelBinding": "write channel_binding instead",
        "prepareThreshold preparedStatementCacheQueries preparedStatementCacheSizeMiB"
        " preferQueryMode autosave cleanupSavepoints reWriteBatchedInserts": _PREPARED,
        "stringtype binaryTransfer binaryTransferEnable binaryTransferDisable defaultRowFetchSize"
        " adaptiveFetch adaptiveFetchMinimum adaptiveFetchMaximum databaseMetadataCacheFields"
        " databaseMetadataCacheFieldsMiB disableColumnSanitiser escapeSyntaxCallMode"
        " groupStartupParameters hideUnprivilegedObjects localSocketAddress logServerErrorDetail"
        " logUnclosedConnections loggerFile loggerLevel maxResultBuffer maxSendBufferSize"
        " quoteReturningIdentifiers readOnly readOnlyMode receiveBufferSize sendBufferSize"
        " socketFactory socketFactoryArg unknownLength xmlFactoryFactory allowEncodingChanges"
        " assumeMinServerVersion authenticationPluginClassName PGDBNAME PGHOST PGPORT"
        " sslpasswordCallback protocolVersion": _DRIVER,
    },
    "Npgsql": {
        "Server": "write host instead",
        "Username": "write user instead",
        "SearchPath": _SCHEMA,
        "SslMode": _SSLMODE,
        "SslCertificate SslKey": _CLIENT_CERT,
        "SslPassword": "write sslpassword instead",
        "RootCertificate TrustServerCertificate CheckCertificateRevocation": _ROOT,
        "SslNegotiation": "write sslnegotiation instead",
        "RequireAuth": "write require_auth instead",
        "Timeout": _TIMEOUT,
        "CommandTimeout InternalCommandTimeout CancellationTimeout": _ENDLESS,
        "KeepAlive TcpKeepAliveTime TcpKeepAliveInterval": _KEEPALIVE,
        "TargetSessionAttributes": _HOSTS,
        "IncludeErrorDetail LogParameters PersistSecurityInfo Enlist Multiplexing"
        " WriteCoalescingBufferThresholdBytes LoadTableComposites ArrayNullabilityMode"
        " ReadBufferSize WriteBufferSize SocketReceiveBufferSize SocketSendBufferSize"
        " ServerCompatibilityMode ClientEncoding Entlibcompatible HostRecheckSeconds"
        " IncludeRealm": _DRIVER,
        "Pooling MinPoolSize MaxPoolSize MinimumPoolSize MaximumPoolSize ConnectionIdleLifetime"
        " ConnectionPruningInterval ConnectionLifetime NoResetOnClose": _POOL,
        "MaxAutoPrepare AutoPrepareMinUsages": _PREPARED,
        "KerberosServiceName": _KERBEROS,
    },
    "Prisma": {
        "schema": _SCHEMA,
        "sslaccept": _SSLMODE,
        "sslidentity": _CLIENT_CERT,
        "connection_limit pool_timeout pgbouncer max_idle_connection_lifetime"
        " max_connection_lifetime": _POOL,
        "socket_timeout": _ENDLESS,
        "statement_cache_size": _PREPARED,
    },
    "SQLAlchemy, Django and dj-database-url": {
        "driver dialect echo isolation_level executemany_mode use_native_uuid autocommit"
        " binary_parameters": _DRIVER,
        "pool pool_size max_overflow pool_recycle pool_pre_ping conn_max_age conn_health_checks"
        " disable_server_side_cursors": _POOL,
        "encoding charset characterEncoding": "leave it out: initmig always uses UTF-8",
        "ssl_require": _SSLMODE,
        "server_settings": "write options=-c%20NAME%3DVALUE instead",
    },
    "asyncpg and psycopg": {
        "database": "write dbname instead; in a URL, write /NAME after the host",
        "timeout": _TIMEOUT,
        "command_timeout": _ENDLESS,
        "max_cached_statement_lifetime max_cacheable_statement_size prepared_statement_cache_size"
        " prepared_statement_name_func prepare_threshold": _PREPARED,
        "direct_tls": "write sslnegotiation=direct instead",
        "krb_server_name": _KERBEROS,
    },
    "pgx and lib/pq": {
        "pool_max_conns pool_min_conns pool_min_idle_conns pool_max_conn_lifetime"
        " pool_max_conn_lifetime_jitter pool_max_conn_idle_time pool_health_check_period": _POOL,
        "default_query_exec_mode statement_cache_capacity statement_cache_mode"
        " description_cache_capacity prefer_simple_protocol": _PREPARED,
        "sslinline disable_prepared_binary_result": _DRIVER,
        "connection_timeout": _TIMEOUT,
    },
    "node-postgres and postgres.js": {
        "tls ssl_mode": _SSLMODE,
        "uselibpqcompat": "leave it out: initmig uses libpq",
        "ssl_ca": _ROOT,
        "connectionTimeoutMillis connect_timeout_ms": _TIMEOUT,
        "query_timeout": _ENDLESS,
        "keepAlive keepAliveInitialDelayMillis": _KEEPALIVE,
        "max idleTimeoutMillis idle_timeout max_lifetime max_pipeline": _POOL,
        "prepare fetch_types": _PREPARED,
        "application_Name": "write application_name instead",
    },
    "Ecto": {
        "ssl_opts socket_options": _SSLMODE,
        "pool_count queue_target queue_interval": _POOL,
        "show_sensitive_data_on_connection_error migration_source after_connect": _DRIVER,
    },
    "R2DBC": {
        "sslRootCert": _ROOT,
        "sslCert": _CLIENT_CERT,
        "sslContextBuilderCustomizer sslSni": _SSLMODE,
        "statementTimeout lockWaitTimeout lockTimeout": _ENDLESS,
        "tcpNoDelay autodetectExtensions compatibilityMode errorResponseLogLevel fetchSize"
        " forceBinary loopResources noticeLogLevel extensions timeZone": _DRIVER,
        "maxSize initialSize maxIdleTime maxLifeTime maxAcquireTime": _POOL,
    },
    "Rails": {
        "adapter prepared_statements advisory_locks min_messages": _DRIVER,
        "schema_search_path": _SCHEMA,
        "reaping_frequency checkout_timeout idle_timeout max_connections pool_max_size": _POOL,
        "variables": "write options=-c%20NAME%3DVALUE instead",
    },
    "golang-migrate and dbmate": {
        "x-migrations-table x-migrations-table-quoted": (
            "leave it out: initmig keeps its own history, in the table of --history-table"
        ),
        "x-multi-statement x-multi-statement-max-size x-lock-strategy x-lock-retry-max-interval"
        " x-force-lock x-lock-table x-advisory-lock-table": _DRIVER,
        "x-statement-timeout": _ENDLESS,
        "x-no-lock": "leave it out: initmig always takes its migration lock",
    },
    "MySQL's drivers": {
        "useSSL requireSSL verifyServerCertificate sslVerify": _SSLMODE,
        "useUnicode allowPublicKeyRetrieval serverTimezone parseTime multiStatements": _DRIVER,
        "sslca ssl-ca": _ROOT,
        "ssl-mode": _SSLMODE,
    },
    "an environment file": {
        "DATABASE_URL POSTGRES_URL PG_URL POSTGRESQL_URL PGURL DB_URL DATABASE_URI": _VARIABLE,
    },
}
"""Parameter names by the program that documents them, and what to write for initmig instead."""

_SEPARATORS = str.maketrans("", "", "_- ")


def _folded(name: str) -> str:
    """*name* without case and separators, which some programs ignore, such as Npgsql."""
    return name.lower().translate(_SEPARATORS)


_REMEDIES = {
    name: remedy
    for tool in _TOOLS.values()
    for names, remedy in tool.items()
    for name in names.split()
}
_FOLDED = {_folded(name): remedy for name, remedy in _REMEDIES.items()}

_SECRET = re.compile(r"(?i)pass(word|wd)?|pwd|secret|scram_(client|server)_key")

_QUOTES = (
    "\"'`"
    "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{DOUBLE LOW-9 QUOTATION MARK}"
    "\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}\N{SINGLE LOW-9 QUOTATION MARK}"
    "\N{DOUBLE PRIME}\N{PRIME}\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}"
    "\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}"
    "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"
)
_OPENING = f"{_QUOTES}<([{{"
_CLOSING = f"{_QUOTES}>,;"


def remedy(name: str, known: Iterable[str]) -> str:
    """How to replace the parameter *name*; empty if no other program is known to use it.

    *known* are the names of libpq's parameters.
    """
    if name in known:
        return ""
    own = next((each for each in known if _folded(each) == _folded(name)), "")
    return (
        _REMEDIES.get(name) or (own and f"write {own} instead") or _FOLDED.get(_folded(name)) or ""
    )


def unknown(name: str, known: Iterable[str]) -> str:
    """The problem of the parameter *name*, which no program is known to use."""
    problem = f"libpq does not know the parameter {name}"
    if near := get_close_matches(name.lower(), known, n=1):
        return f"{problem}: did you mean {near[0]}?"
    if near := get_close_matches(name, _REMEDIES, n=1, cutoff=0.8):
        return f"{problem}: if it stands for {near[0]}, {_REMEDIES[near[0]]}"
    return f"{problem}: leave it out"


def in_url(key: str, equals: str, rest: str, known: Iterable[str]) -> str:
    """The problem of the parameter *key* in the URL that ends in *rest*; empty if unclear.

    *equals* is empty if the parameter has no value. libpq decides about plain names that are
    unknown here, because it may be newer.
    """
    if replacement := remedy(key, known):
        return f"libpq does not know the parameter {key} of the URL: {replacement}"
    if not can_be_shown(key, rest):
        return ""
    if key in known and not equals:
        return f"the parameter {key} of the URL has no value: write {key}=VALUE, or leave it out"
    if key in known:
        return f"the value of {key} in the URL contains a =: write it as %3D"
    if re.fullmatch(r"[a-z_]{3,}", key) and equals:
        return ""
    return unknown(key, known) if re.fullmatch(r"[\w.-]+", key) else ""


def in_pairs(text: str, known: Iterable[str]) -> str:
    """The problem of a name in the pairs of *text*; empty if there is no problem."""
    value = r"(?:'(?:[^'\\]|\\.)*'|[^\s\\]*(?:\\.[^\s\\]*)*)"
    for name, given in re.findall(rf"(?s)([A-Za-z_]\w*)\s*=\s*({value})", text):
        if re.search(r"(?i);\s*(host|port|server|username|user id|password|database)\s*=", given):
            return (
                "the connection string separates its pairs with semicolons, as Npgsql does;"
                " write a URL, or libpq's pairs: host=… port=… dbname=… user=… password=…"
            )
        if replacement := remedy(name, known):
            return f"libpq does not know the parameter {name}: {replacement}"
    return ""


def can_be_shown(name: str, text: str) -> bool:
    """Whether the parameter *name* in *text* cannot be part of a password.

    It may be part of one if a password comes before it, because a password may contain ``&`` or
    a space, or if an ``@`` comes after it. *text* is a URL without its scheme, or pairs.
    """
    if "@" in text.partition("?")[2]:
        return False
    found = re.search(rf"(?:^|[?&\s]){re.escape(name)}\s*(=|&|$)", text)
    return found is not None and not _SECRET.search(text[: found.start()])


def wrapping(text: str) -> str:
    """The problem of characters around the URL or the pairs in *text*; empty without any."""
    bare = text.strip()
    problem = _problem_before(bare)
    if problem or "://" not in bare or bare[-1] not in _CLOSING:
        return problem and f"the connection string {problem}"
    code = "".join(f"%{byte:02X}" for byte in bare[-1].encode())
    return (
        f"the connection string ends with {bare[-1]}: remove it, or write {code} if it is part of"
        " the last value"
    )


def _problem_before(bare: str) -> str:
    """The problem of text before the URL or pairs; *bare* has no blanks around it."""
    variable = (
        r"(?i)(?:export\s+|set\s+|\$env:)?(\w*(?:ur[il]|dsn)\w*)\s*[=:]\s*[\"']?[\w+]*postgres"
    )
    if assigned := re.match(variable, bare):
        return f"begins with {assigned[1]}: {_VARIABLE}"
    if re.match(r"(?:\$\s*)?(?:psql|pg_dump|pg_restore|pgcli|initmig)\s", bare):
        return "is a command: write only the URL, without the program"
    if bare.startswith(("$", "{{")):
        return "is a variable that was not replaced by its value"
    if bare.startswith("\ufeff"):
        return "begins with a byte order mark: save it without one"
    if bare and bare[0] in _OPENING:
        around = "quotes" if bare[0] in _QUOTES else "brackets"
        return f"begins with {bare[0]}: remove the {around} around it"
    return ""
