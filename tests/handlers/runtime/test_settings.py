import ast
import re
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from handlers.runtime.exceptions import InvalidSettings
from handlers.runtime.settings import MIN_BOOTSTRAP_KEY_CHARACTERS, LogFormat, Settings, read_settings
from tests.support.documents import ROOT

SECRET = "sk-made-up-0123456789-abcdefghij"
OAUTH = {
    "RELAY_PUBLIC_URL": "https://relay.example.com",
    "RELAY_OAUTH_ISSUER": "https://login.example.com/team/",
    "RELAY_OAUTH_JWKS_URL": "https://login.example.com/keys",
}


def refusal(**environment: str) -> str:
    """The message with which these variables stop the start."""
    with pytest.raises(InvalidSettings) as caught:
        read_settings(environment)
    return str(caught.value)


def readme_table() -> dict[str, tuple[str, str]]:
    """Variable to default and meaning, as the README's table has them."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, rest = readme.partition("| Variable | Default | Meaning |\n|---|---|---|\n")
    lines = rest.split("\n\n")[0].splitlines()
    cells = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in lines]
    return {row[0].strip().strip("`"): (row[1].strip(), row[2].strip()) for row in cells}


def test_the_readme_lists_every_setting_and_no_other() -> None:
    """The README's table and the settings have the same names, in the same order."""
    assert list(readme_table()) == list(Settings.model_fields)


def test_the_readme_gives_the_defaults_and_meanings_of_the_code() -> None:
    """Each line of the README's table says the default that the code has and what `--help` says."""
    for name, (default, meaning) in readme_table().items():
        field = Settings.model_fields[name]
        value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        assert default == ("not set" if value in {"", None} else f"`{value}`"), name
        assert meaning == field.description, name


def test_every_setting_has_a_harmless_default() -> None:
    """An empty environment is a valid one: loopback, the public service, no keys."""
    settings = read_settings({})
    assert settings.RELAY_HOST == "127.0.0.1"
    assert settings.OPENAI_BASE_URL == "https://api.openai.com/v1"
    assert settings.OPENAI_API_KEY.get_secret_value() == ""
    assert settings.RELAY_KEY.get_secret_value() == ""
    assert settings.RELAY_KEY_FILE is None


def test_values_are_read_with_their_types() -> None:
    """Text of the environment becomes numbers, paths, choices and secrets; other variables are none of its business."""
    settings = read_settings(
        {
            "OPENAI_API_KEY": SECRET,
            "OPENAI_BASE_URL": "http://127.0.0.1:9000/v1/",
            "RELAY_PORT": "0",
            "RELAY_KEY_FILE": "/etc/relay/keys.yaml",
            "RELAY_LOG_FORMAT": "console",
            "RELAY_IDLE_TIMEOUT_SECONDS": "0.5",
            "RELAY_MAX_JSON_BYTES": "1024",
            "PATH": "/bin",
            "OPENAI_LOG": "debug",
        }
    )
    assert settings.OPENAI_API_KEY.get_secret_value() == SECRET
    assert settings.OPENAI_BASE_URL == "http://127.0.0.1:9000/v1"
    assert (settings.RELAY_PORT, settings.RELAY_IDLE_TIMEOUT_SECONDS, settings.RELAY_MAX_JSON_BYTES) == (0, 0.5, 1024)
    assert Path("/etc/relay/keys.yaml") == settings.RELAY_KEY_FILE
    assert settings.RELAY_LOG_FORMAT is LogFormat.CONSOLE


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_an_empty_variable_counts_as_absent(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`NAME=` means "not set", as compose files write it, also when the process itself was started with it."""
    monkeypatch.setenv(name, "")
    assert read_settings({name: ""}) == read_settings({})


def test_only_the_given_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing comes in behind the caller's back: not from the process's variables, not from a `.env` file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("RELAY_PORT=3\n", encoding="utf-8")
    monkeypatch.setenv("RELAY_PORT", "4")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-process")
    settings = read_settings({})
    assert (settings.RELAY_PORT, settings.OPENAI_ORG_ID) == (8080, "")


def test_settings_made_from_values_hold_those_values_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """`relay demo` builds its settings from values and promises that no key of the environment is used."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-of-the-process")
    settings = Settings.model_validate({"RELAY_PORT": 0})
    assert settings.OPENAI_API_KEY.get_secret_value() == ""
    assert settings.OPENAI_PROJECT_ID == ""


def test_an_unknown_relay_variable_stops_the_start() -> None:
    """A mistyped or outdated variable is named together with the command that lists the right ones."""
    message = refusal(RELAY_PROT="8080", relay_port="1")
    assert message == "RELAY_PROT: is not a setting; `relay serve --help` lists them."


def test_every_problem_is_reported_at_once() -> None:
    """Unknown and malformed variables come in one message, one line each."""
    lines = refusal(RELAY_A="1", RELAY_B="2", RELAY_PORT="many", RELAY_LOG_FORMAT="xml").splitlines()
    assert [line.split(":")[0] for line in lines] == ["RELAY_A", "RELAY_B", "RELAY_PORT", "RELAY_LOG_FORMAT"]


@pytest.mark.parametrize(
    "name, value",
    [
        *(("RELAY_PORT", value) for value in ("-1", "65536", "80a", "8080.5", "1e3")),
        *(("RELAY_CONNECT_TIMEOUT_SECONDS", value) for value in ("0", "-1", "nan", "ten", "10s")),
        *(("RELAY_TOTAL_TIMEOUT_SECONDS", value) for value in ("inf", "Infinity", "1e400")),
        *(("RELAY_IDLE_TIMEOUT_SECONDS", value) for value in ("inf", "0")),
        *(("RELAY_MAX_JSON_BYTES", value) for value in ("0", "-5", "1.5", "64MB")),
        *(("RELAY_MAX_UPLOAD_BYTES", value) for value in ("0", "many")),
        *(("RELAY_SHUTDOWN_TIMEOUT_SECONDS", value) for value in ("0", "x")),
        *(("RELAY_LOG_FORMAT", value) for value in ("JSON", "text")),
        *(
            ("OPENAI_BASE_URL", value)
            for value in ("api.openai.com/v1", "//api.openai.com", "ftp://host/v1", "/v1", "https://")
        ),
        *(("OPENAI_BASE_URL", value) for value in ("https://host/v1?a=b", "https://host/v1#a", "https://[::1", "x")),
        *(
            ("OPENAI_BASE_URL", value)
            for value in ("https://host:port/v1", "https://host:99999/v1", "https://ho st/v1")
        ),
        *(("RELAY_PUBLIC_URL", value) for value in ("relay.example.com", "javascript:alert(1)", "https://host:0x50")),
        *(("OPENAI_API_KEY", value) for value in ("sk with space", "sk-\n", "sk-ü", "sk-\x7f")),
        *(
            ("RELAY_KEY", value)
            for value in ("short", "x" * (MIN_BOOTSTRAP_KEY_CHARACTERS - 1), "has space " * 5, "ü" * 30)
        ),
        *(("OPENAI_ORG_ID", value) for value in ("org\nX-Injected: 1", "ü")),
        ("OPENAI_PROJECT_ID", "proj\r"),
        *(("RELAY_PUBLIC_URL", value) for value in ('https://host/"', "https://host/\\", "https://host/\x01")),
        *(
            (name, value)
            for name in ("RELAY_OAUTH_ISSUER", "RELAY_OAUTH_JWKS_URL")
            for value in (
                *("login.example.com", "http://login.example.com", "ftp://login.example.com", "https://", "/keys"),
                *("https://user:pass@host/", "https://user@host/", "https://@host/", "https://host:port", "file:///k"),
                *("https://host/?a=b", "https://host/?", "https://host/#a", "https://host/#", "https://host/ x"),
                *("https://hö.example", "https://host/\n", "http://127.0.0.1.example.com/"),
            )
        ),
        *(
            ("RELAY_MCP_ORIGINS", value)
            for value in (
                *("*", "null", "app.example.com", "https://", "https://*.example.com", "https://app.example.com/"),
                *("https://App.example.com", "HTTPS://app.example.com", "https://app.example.com:443", "file://"),
                *("http://localhost:80", "https://app.example.com:port", "https://app.example.com:", "https://a b"),
                *("https://user@app.example.com", "https://app.example.com?a", "https://app.example.com#a"),
                *("https://a.example.com https://b.example.com", "https://a.example.com,null", "https://höst"),
            )
        ),
    ],
)
def test_a_malformed_value_stops_the_start_with_its_name(name: str, value: str) -> None:
    """What cannot work is refused at the start, by the variable's name, instead of failing at the first request."""
    assert refusal(**{name: value}).startswith(f"{name}: ")


@pytest.mark.parametrize("scheme", ["https://user:pass@host/v1", "https://user@host/v1"])
def test_credentials_in_an_address_are_refused_and_not_repeated(scheme: str) -> None:
    """A password in an address would show in the start-up summary; the message says where a key belongs."""
    message = refusal(OPENAI_BASE_URL=scheme)
    assert "OPENAI_API_KEY" in message
    assert "user" not in message


def test_an_issuer_is_taken_byte_for_byte() -> None:
    """Tokens name it in `iss`, and a slash more or less would refuse them all."""
    settings = read_settings(OAUTH)
    assert OAUTH["RELAY_OAUTH_ISSUER"] == settings.RELAY_OAUTH_ISSUER
    assert OAUTH["RELAY_OAUTH_JWKS_URL"] == settings.RELAY_OAUTH_JWKS_URL
    for issuer in ("https://login.example.com", "https://LOGIN.example.com/", "https://login.example.com:443/a/@b"):
        assert issuer == read_settings({**OAUTH, "RELAY_OAUTH_ISSUER": issuer}).RELAY_OAUTH_ISSUER


@pytest.mark.parametrize("host", ["127.0.0.1:8081", "localhost", "[::1]:9000"])
def test_an_issuer_on_this_machine_may_do_without_tls(host: str) -> None:
    """Nobody can listen in there, so it can be tried out without certificates; nor need the relay have any."""
    urls = dict.fromkeys(OAUTH, f"http://{host}/a")
    assert f"http://{host}/a" == read_settings(urls).RELAY_OAUTH_JWKS_URL


@pytest.mark.parametrize("missing", OAUTH)
def test_an_issuer_comes_as_a_whole_or_not_at_all(missing: str) -> None:
    """Issuer, keys and the relay's own address need each other; the message names what is missing."""
    rest = {name: value for name, value in OAUTH.items() if name != missing}
    assert refusal(**rest) == f"{missing}: must be set where another RELAY_OAUTH_… variable is"
    assert read_settings({"RELAY_PUBLIC_URL": OAUTH["RELAY_PUBLIC_URL"]}).RELAY_OAUTH_ISSUER == ""


def test_all_that_an_issuer_lacks_is_reported_at_once() -> None:
    """One line each, beside what else is wrong."""
    lines = refusal(RELAY_OAUTH_CA_FILE="/etc/ca.pem", RELAY_A="1").splitlines()
    names = ["RELAY_A", "RELAY_OAUTH_ISSUER", "RELAY_OAUTH_JWKS_URL", "RELAY_PUBLIC_URL"]
    assert [line.split(":")[0] for line in lines] == names


def test_tokens_are_not_sent_in_the_clear() -> None:
    """With an issuer, the relay's own address is https too."""
    assert refusal(**{**OAUTH, "RELAY_PUBLIC_URL": "http://relay.example.com"}).startswith("RELAY_PUBLIC_URL: must be ")
    assert read_settings({"RELAY_PUBLIC_URL": "http://relay.example.com"}).RELAY_OAUTH_ISSUER == ""


def test_origins_are_listed_as_browsers_write_them() -> None:
    """Spaces around the commas are nobody's business; other schemes than those of the web may ask as well."""
    origins = "https://app.example.com , http://localhost:3000,http://[::1]:8080 ,, vscode-webview://0a1b"
    expected = "https://app.example.com,http://localhost:3000,http://[::1]:8080,vscode-webview://0a1b"
    assert expected == read_settings({"RELAY_MCP_ORIGINS": origins}).RELAY_MCP_ORIGINS


def test_a_refused_secret_is_not_repeated() -> None:
    """The message about a malformed key names the variable, not the key."""
    for name in ("OPENAI_API_KEY", "RELAY_KEY"):
        message = refusal(**{name: f"{SECRET} and more"})
        assert name in message
        assert SECRET not in message


def test_secrets_do_not_show_in_what_python_prints() -> None:
    """Printing or logging the settings shows no key."""
    settings = read_settings({"OPENAI_API_KEY": SECRET, "RELAY_KEY": SECRET})
    for shown in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())):
        assert SECRET not in shown


def test_settings_cannot_be_changed() -> None:
    """What was read at the start holds until the end."""
    with pytest.raises(ValidationError):
        read_settings({}).RELAY_PORT = 1  # type: ignore[misc]


def test_names_carry_their_units() -> None:
    """Every number among the settings says in its name its unit, or what it counts; a port has neither."""
    numbers = {name for name, field in Settings.model_fields.items() if field.annotation in {int, float}} - {
        "RELAY_METRICS_PORT",
        "RELAY_PORT",
    }
    assert numbers
    counted = ("CONNECTIONS", "FAILURES", "HEADERS", "QUEUE", "REQUESTS", "RETRIES", "SOCKETS", "WORKERS")
    units = ("_SECONDS", "_BYTES", *(f"_{things}" for things in counted))
    assert all(name.removesuffix("_PER_KEY").endswith(units) for name in numbers), numbers


def environment_readers(source: str) -> set[str]:
    """Names under which a source reaches for the process's environment."""
    attributes = (node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute))
    return {"environ", "environb", "getenv", "getenvb"}.intersection(attributes)


def test_nothing_else_reads_the_environment() -> None:
    """One object is the relay's only reader of the environment; the two commands hand the variables over."""
    paths = [path for folder in ("codegen", "handlers") for path in (ROOT / folder).rglob("*.py")]
    readers = {p.relative_to(ROOT).as_posix() for p in paths if environment_readers(p.read_text(encoding="utf-8"))}
    assert readers == {"handlers/cli.py", "codegen/cli.py"}
