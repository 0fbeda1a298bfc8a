"""
The relay's settings: one frozen object, the only reader of the environment.

Unknown `RELAY_*` variables and malformed values stop the start with the variable's name and the reason.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from handlers.runtime.exceptions import InvalidSettings
from handlers.runtime.networks import listed_networks
from handlers.runtime.remote_hosts import DEFAULT_HOSTS

MIN_BOOTSTRAP_KEY_CHARACTERS = 24
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
_URL = re.compile(r"[!#-\[\]-~]+")  # printable ASCII but for quote and backslash: it also stands in headers
# As browsers write one (RFC 6454, section 6.2), without the port that goes without saying.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")


class LogFormat(StrEnum):
    """How log lines look."""

    JSON = "json"
    CONSOLE = "console"


class Settings(BaseModel):
    """
    Everything that can be set from outside. The README's table lists the same names; a test compares both.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    OPENAI_API_KEY: SecretStr = Field(default=SecretStr(""), description="Upstream key; only the relay ever holds it.")
    OPENAI_BASE_URL: str = Field(default="https://api.openai.com/v1", description="Upstream service, up to `/v1`.")
    OPENAI_ORG_ID: str = Field(default="", description="Sent upstream as `OpenAI-Organization`.")
    OPENAI_PROJECT_ID: str = Field(default="", description="Sent upstream as `OpenAI-Project`.")
    RELAY_HOST: str = Field(default="127.0.0.1", description="Address to listen on.")
    RELAY_PORT: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    RELAY_KEY: SecretStr = Field(
        default=SecretStr(""), description="One bootstrap key with every scope but `operator`; at least 24 characters."
    )
    RELAY_KEY_FILE: Path | None = Field(default=None, description="File of hashed keys with their scopes.")
    RELAY_PUBLIC_URL: str = Field(default="", description="The relay's https address as clients see it.")
    RELAY_LOG_FORMAT: LogFormat = Field(default=LogFormat.JSON, description="`json` or `console`.")
    RELAY_CONNECT_TIMEOUT_SECONDS: float = Field(
        default=10.0, gt=0, allow_inf_nan=False, description="To connect to the upstream."
    )
    RELAY_IDLE_TIMEOUT_SECONDS: float = Field(
        default=600.0, gt=0, allow_inf_nan=False, description="Without a byte from the upstream, also in mid-stream."
    )
    RELAY_TOTAL_TIMEOUT_SECONDS: float = Field(
        default=3600.0, gt=0, allow_inf_nan=False, description="For one whole request."
    )
    RELAY_MAX_UPSTREAM_CONNECTIONS: int = Field(
        default=500, gt=0, description="Calls under way to the upstream per worker; further ones wait."
    )
    RELAY_MAX_UPSTREAM_QUEUE: int = Field(
        default=100, ge=0, description="Calls that wait for one of these per worker; further ones get 503."
    )
    RELAY_UPSTREAM_QUEUE_TIMEOUT_SECONDS: float = Field(
        default=5.0, gt=0, allow_inf_nan=False, description="To wait there; who waits longer gets 503."
    )
    RELAY_UPSTREAM_RETRIES: int = Field(
        default=2, ge=0, le=10, description="How often a call is sent again where that is safe."
    )
    RELAY_BREAKER_FAILURES: int = Field(
        default=20, ge=0, description="Failures in a row after which a worker leaves the upstream alone; 0 is never."
    )
    RELAY_BREAKER_OPEN_SECONDS: float = Field(
        default=10.0, gt=0, allow_inf_nan=False, description="For so long; then one call tries first."
    )
    RELAY_MAX_JSON_BYTES: int = Field(default=64 * 2**20, gt=0, description="Largest JSON body; it is read whole.")
    RELAY_MAX_UPLOAD_BYTES: int = Field(
        default=2 * 2**30, gt=0, description="Largest multipart or binary body; it is streamed."
    )
    RELAY_SHUTDOWN_TIMEOUT_SECONDS: int = Field(
        default=30, gt=0, description="To finish running requests after SIGTERM."
    )
    RELAY_SOCKET_MAX_MESSAGE_BYTES: int = Field(
        default=32 * 2**20, gt=0, description="Longest message of a socket; a longer one ends it with 1009."
    )
    RELAY_SOCKET_IDLE_TIMEOUT_SECONDS: float = Field(
        default=600.0, gt=0, allow_inf_nan=False, description="For a socket without a message either way."
    )
    RELAY_SOCKET_TOTAL_TIMEOUT_SECONDS: float = Field(
        default=3900.0, gt=0, allow_inf_nan=False, description="For one whole socket; upstream ends its own after 3600."
    )
    RELAY_SOCKET_PING_INTERVAL_SECONDS: float = Field(
        default=20.0, gt=0, allow_inf_nan=False, description="Between two pings on a socket, on both sides."
    )
    RELAY_SOCKET_PING_TIMEOUT_SECONDS: float = Field(
        default=20.0, gt=0, allow_inf_nan=False, description="For the answer to such a ping."
    )
    RELAY_MAX_SOCKETS_PER_KEY: int = Field(
        default=20, gt=0, description="Sockets that one key may have at a time, in each worker."
    )
    RELAY_WORKERS: int = Field(default=1, ge=1, le=256, description="Processes that share the address.")
    RELAY_WORKER_SILENCE_SECONDS: float = Field(
        default=30.0, ge=1, allow_inf_nan=False, description="A worker that hangs for so long is killed and replaced."
    )
    RELAY_MAX_CONNECTIONS: int = Field(
        default=5000, gt=0, description="Open client connections per worker; requests on further ones get 503."
    )
    RELAY_MAX_CONCURRENT_REQUESTS: int = Field(
        default=1000, gt=0, description="Running requests per worker; further ones get 503, except probes."
    )
    RELAY_MAX_CONCURRENT_REQUESTS_PER_KEY: int = Field(
        default=0, ge=0, description="Running requests of one key per worker; further ones get 429; 0 is no limit."
    )
    RELAY_MAX_REQUEST_LINE_BYTES: int = Field(
        default=16 * 2**10, ge=256, description="Longest request line: method, path and query."
    )
    RELAY_MAX_HEADER_BYTES: int = Field(default=64 * 2**10, ge=1024, description="All headers of a request together.")
    RELAY_MAX_HEADERS: int = Field(default=100, ge=10, description="How many headers a request may have.")
    RELAY_HEADER_TIMEOUT_SECONDS: float = Field(
        default=20.0, gt=0, allow_inf_nan=False, description="For a request's headers to arrive."
    )
    RELAY_BODY_IDLE_TIMEOUT_SECONDS: float = Field(
        default=30.0, gt=0, allow_inf_nan=False, description="In which at least 1,024 bytes of a body must arrive."
    )
    RELAY_SEND_IDLE_TIMEOUT_SECONDS: float = Field(
        default=60.0, gt=0, allow_inf_nan=False, description="Without a byte of the reply taken by the client."
    )
    RELAY_SSE_KEEPALIVE_SECONDS: float = Field(
        default=15.0, ge=0, allow_inf_nan=False, description="Between comments on an idle event stream; 0 is none."
    )
    RELAY_STORE_URL: SecretStr = Field(
        default=SecretStr("sqlite+aiosqlite://"),
        description="Where replies to calls with an `idempotency_key` are kept; the default is memory.",
    )
    RELAY_ARTIFACT_URL: SecretStr = Field(
        default=SecretStr(""),
        description="Where files for assistants lie: `file:///…` or `s3://bucket/folder`; a private folder by default.",
    )
    RELAY_ARTIFACT_SECRET: SecretStr = Field(
        default=SecretStr(""), description="What links to them are signed with; the same for all replicas."
    )
    RELAY_ARTIFACT_TTL_SECONDS: int = Field(
        default=3600, gt=0, le=604800, description="How long such a link is good, and its file kept."
    )
    RELAY_ARTIFACT_MAX_TOTAL_BYTES: int = Field(default=2**30, gt=0, description="Of all such files together.")
    RELAY_ARTIFACT_MAX_FILE_BYTES: int = Field(default=2**28, gt=0, description="Largest single one.")
    RELAY_FILE_HOSTS: str = Field(
        default=",".join(DEFAULT_HOSTS),
        description="Hosts that files of a conversation are fetched from: `name`, `*.suffix` or `prefix*.suffix`.",
    )
    RELAY_FILE_PRIVATE_NETWORKS: str = Field(
        default="", description="Private networks that they may lie in, on any port; never link-local or metadata."
    )
    RELAY_FILE_CA_FILE: Path | None = Field(
        default=None, description="Certificates to trust there, beside the usual ones."
    )
    RELAY_FILE_MAX_BYTES: int = Field(default=512 * 2**20, gt=0, description="Largest file fetched by link.")
    RELAY_FILE_TIMEOUT_SECONDS: float = Field(
        default=30.0, gt=0, le=35, allow_inf_nan=False, description="To fetch one file, from look-up to last byte."
    )
    RELAY_MCP_ORIGINS: str = Field(
        default="",
        description="Origins, such as `https://app.example.com`, whose pages may ask `/mcp`, beside the relay's own.",
    )
    RELAY_CORS_ORIGINS: str = Field(
        default="", description="Origins whose pages may call everything else; without any there is no CORS."
    )
    RELAY_NETWORKS_ACTIONS: str = Field(
        default="", description="From where the scope `actions` may be used: networks, or `chatgpt`; empty is anywhere."
    )
    RELAY_NETWORKS_PROXY: str = Field(default="", description="The same for `proxy`.")
    RELAY_NETWORKS_CANONICAL: str = Field(default="", description="The same for `canonical`.")
    RELAY_NETWORKS_REALTIME: str = Field(default="", description="The same for `realtime`.")
    RELAY_NETWORKS_OPERATOR: str = Field(default="", description="The same for `operator`.")
    RELAY_NETWORKS_MCP: str = Field(default="", description="The same for `/mcp`, beside those of the key's scopes.")
    RELAY_CHATGPT_NETWORKS_FILE: Path | None = Field(
        default=None, description="What `chatgpt` stands for there; `relay networks refresh` writes it."
    )
    RELAY_TRUSTED_PROXIES: str = Field(
        default="", description="Networks of proxies whose `X-Forwarded-For` or `Forwarded` says who asks."
    )
    RELAY_OAUTH_ISSUER: str = Field(
        default="", description="Who issues access tokens for `/mcp`, exactly as its tokens say in `iss`."
    )
    RELAY_OAUTH_JWKS_URL: str = Field(default="", description="Where that issuer publishes its keys.")
    RELAY_OAUTH_AUDIENCE: str = Field(
        default="", description="What its tokens must name in `aud`; the address of `/mcp` when not set."
    )
    RELAY_OAUTH_CA_FILE: Path | None = Field(
        default=None, description="Certificates to trust there, beside the usual ones."
    )

    RELAY_METRICS_PORT: int = Field(
        default=0, ge=0, le=65535, description="Port that serves `/metrics` without a key; 0 is none."
    )
    RELAY_METRICS_HOST: str = Field(default="127.0.0.1", description="Address of that port.")
    RELAY_OTEL: bool = Field(
        default=False, description="Send OpenTelemetry traces and metrics, as the `OTEL_…` variables say; extra `otel`."
    )

    @field_validator("OPENAI_BASE_URL", "RELAY_PUBLIC_URL")
    @classmethod
    def _absolute_url(cls, value: str) -> str:
        if not value:
            return value
        parts = _split(
            value, "must be an absolute http or https URL without a query, such as https://api.openai.com/v1"
        )
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not hold credentials; use OPENAI_API_KEY")
        return value.rstrip("/")

    @field_validator("RELAY_OAUTH_ISSUER", "RELAY_OAUTH_JWKS_URL")
    @classmethod
    def _issuer_url(cls, value: str) -> str:
        if not value:
            return value
        wrong = "must be an https URL without credentials, query and fragment, such as https://login.example.com"
        parts = _split(value, wrong)
        if parts.username is not None or not _confidential(parts) or {"?", "#"} & set(value):
            raise ValueError(wrong)
        return value  # the issuer is compared byte for byte, so a slash at its end stays

    @field_validator("RELAY_MCP_ORIGINS", "RELAY_CORS_ORIGINS")
    @classmethod
    def _origins(cls, value: str) -> str:
        origins = [origin.strip() for origin in value.split(",") if origin.strip()]
        for origin in origins:
            scheme, _, rest = origin.partition("://")
            usual = {"http": ":80", "https": ":443"}.get(scheme)
            if not _ORIGIN.fullmatch(origin) or (usual and rest.endswith(usual)):
                raise ValueError(
                    "must list origins as browsers write them: scheme, host in lower case and an unusual port, "
                    "such as https://app.example.com,http://localhost:3000; neither `*` nor `null`"
                )
        return ",".join(origins)

    @field_validator(
        "RELAY_NETWORKS_ACTIONS",
        "RELAY_NETWORKS_PROXY",
        "RELAY_NETWORKS_CANONICAL",
        "RELAY_NETWORKS_REALTIME",
        "RELAY_NETWORKS_OPERATOR",
        "RELAY_NETWORKS_MCP",
    )
    @classmethod
    def _listed_networks(cls, value: str) -> str:
        listed_networks(value)
        return value

    @field_validator("RELAY_TRUSTED_PROXIES")
    @classmethod
    def _proxies(cls, value: str) -> str:
        networks, _ = listed_networks(value, published=False)
        if any(network.prefixlen == 0 for network in networks):
            raise ValueError("must not be everybody: whoever is trusted says from where a request comes")
        return value

    @field_validator("OPENAI_BASE_URL")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError("must not be empty; leave it out to use https://api.openai.com/v1")
        return value

    @field_validator("RELAY_KEY")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and len(value.get_secret_value()) < MIN_BOOTSTRAP_KEY_CHARACTERS:
            raise ValueError(
                f"must have at least {MIN_BOOTSTRAP_KEY_CHARACTERS} characters; `relay keys create` makes one"
            )
        return value

    @field_validator("OPENAI_API_KEY", "RELAY_KEY")
    @classmethod
    def _one_line(cls, value: SecretStr) -> SecretStr:
        secret = value.get_secret_value()
        if not secret.isascii() or any(character.isspace() or not character.isprintable() for character in secret):
            raise ValueError("must be printable ASCII without spaces or line breaks")
        return value

    @field_validator("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "RELAY_OAUTH_AUDIENCE")
    @classmethod
    def _header_value(cls, value: str) -> str:
        if not value.isascii() or (value and not value.isprintable()):
            raise ValueError("must be printable ASCII")
        return value

    @model_validator(mode="after")
    def _whole_issuer(self) -> Self:
        """Tokens are taken as a whole or not at all."""
        if not any(getattr(self, name) for name in type(self).model_fields if name.startswith("RELAY_OAUTH_")):
            return self
        missing = [
            name
            for name in ("RELAY_OAUTH_ISSUER", "RELAY_OAUTH_JWKS_URL", "RELAY_PUBLIC_URL")
            if not getattr(self, name)
        ]
        problems = [f"{name}: must be set where another RELAY_OAUTH_… variable is" for name in missing]
        if self.RELAY_PUBLIC_URL and not _confidential(urlsplit(self.RELAY_PUBLIC_URL)):
            problems.append("RELAY_PUBLIC_URL: must be https where RELAY_OAUTH_ISSUER is set: tokens are sent to it")
        if problems:
            raise PydanticCustomError("fields_together", "\n".join(problems))
        return self


def read_settings(environment: Mapping[str, str]) -> Settings:
    """
    Build the settings from environment variables.

    Args:
        environment: Usually `os.environ`.

    Raises:
        InvalidSettings: A `RELAY_*` variable is unknown, or a value is malformed.
    """
    known = Settings.model_fields
    unknown = sorted(name for name in environment if name.startswith("RELAY_") and name not in known)
    problems = [f"{name}: is not a setting; `relay serve --help` lists them." for name in unknown]
    # An empty variable counts as absent: that is how compose files and shells express "not set".
    values = {name: environment[name] for name in known if environment.get(name)}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        # What is wrong between several fields has no place of its own, and names them in its message.
        problems += [": ".join([*map(str, d["loc"][:1]), d["msg"]]) for d in error.errors(include_input=False)]
        raise InvalidSettings("\n".join(problems)) from None
    if problems:
        raise InvalidSettings("\n".join(problems))
    return settings


def _split(value: str, wrong: str) -> SplitResult:
    """The parts of an absolute http or https URL without query and fragment."""
    try:
        parts = urlsplit(value)
        _ = parts.port  # checked only when it is read
    except ValueError:
        raise ValueError(wrong) from None
    if not _URL.fullmatch(value) or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(wrong)
    if parts.query or parts.fragment:
        raise ValueError(wrong)
    return parts


def _confidential(parts: SplitResult) -> bool:
    return parts.scheme == "https" or parts.hostname in LOOPBACK_HOSTS
