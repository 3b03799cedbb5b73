"""The S3 library, set up so that it neither retries nor hashes, and copies no body.

By default it hashes every body twice and tries three times; both are done by others here,
the checksum in a quarter of the time. Needs boto3, of which only the core is imported: the
rest takes a tenth of a second and is of no use here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader, create_loader
from botocore.session import Session

from imgconv.errors import UsageError
from imgconv.objectstore import Limits
from imgconv.stores.profiles import PROFILES, profile_of_host
from imgconv.stores.s3_errors import explained
from imgconv.stores.s3_wire import Incomplete

_CONNECTIONS = 32  # kept per client: more than any uploader uses at once
_MINUTES = 300  # how long a service may take to put an object together, in seconds
_LISTS = ("ListParts", "ListMultipartUploads")


@dataclass(frozen=True, slots=True)
class Clients:
    """Two clients of the library with one set of credentials, for any number of threads.

    `patient` waits minutes for an answer. `identity` is the access key and the session
    token, None where there is none.
    """

    quick: Any
    patient: Any
    identity: tuple[str | None, str | None]

    def close(self) -> None:
        """Release connections."""
        self.quick.close()
        self.patient.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector:
    """Makes clients; timeouts are in seconds, `profile` may be "auto"."""

    endpoint_url: str | None
    region: str | None
    addressing: str
    profile: str
    aws_profile: str | None
    connect_timeout: int
    read_timeout: int

    def connect(self) -> Clients:
        """Return clients with the credentials that are to be had now.

        Raises UsageError when the library makes no sense of the options.
        """
        try:
            session = Session(profile=self.aws_profile)
            models = _models(session.get_config_variable("data_path"))
            session.register_component("data_loader", models)
            quick = self._client(session, self.read_timeout)
            patient = self._client(session, max(self.read_timeout, _MINUTES))
        except (BotoCoreError, ValueError) as error:
            raise UsageError(f"s3: {error}") from error
        with explained("s3: credentials"):
            return Clients(quick, patient, _identity(session))

    def limits(self, clients: Clients) -> Limits:
        """Return what the service at the clients' endpoint bears."""
        if self.profile != "auto":
            return PROFILES[self.profile]
        return PROFILES[profile_of_host(urlsplit(clients.quick.meta.endpoint_url).hostname)]

    def _client(self, session: Session, read_timeout: int) -> Any:
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": self.addressing, "payload_signing_enabled": False},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"total_max_attempts": 1},
            connect_timeout=self.connect_timeout,
            read_timeout=read_timeout,
            max_pool_connections=_CONNECTIONS,
            tcp_keepalive=True,
            user_agent_extra="imgconv",
        )
        client = session.create_client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.region or session.get_config_variable("region") or "us-east-1",
            config=config,
        )
        client.meta.events.register(
            "before-parse.s3.*",
            lambda **event: _refuse_half(event["operation_model"], event["response_dict"]),
        )
        return client


@cache
def _models(data_path: str | None) -> Loader:
    """Return what loads the descriptions of services, and keeps them for all clients.

    The library would parse megabytes of JSON again for each session, in a tenth of a second.
    """
    return create_loader(data_path)


def _refuse_half(operation: Any, answer: Mapping[str, Any]) -> None:
    """Raise Incomplete for an answer that is shorter than it says, or empty and must not be.

    The library has its transport overlook the one. The other, which is not even a document,
    it takes for a list of nothing, or for an object that is missing when it is an upload
    that may be gone.
    """
    said, body = answer["headers"].get("content-length", ""), answer["body"]
    if operation.http["method"] == "HEAD" or not isinstance(body, bytes):
        return  # there is no body, or it is read later
    if said.isdecimal() and len(body) != int(said):
        raise Incomplete(f"the answer ended after {len(body)} of {said} bytes")
    lists = operation.name in _LISTS and answer["status_code"] < 300
    gone = "UploadId" in operation.input_shape.members and answer["status_code"] == 404
    if not body and (lists or gone):
        raise Incomplete("the answer is empty")


def _identity(session: Session) -> tuple[str | None, str | None]:
    credentials = session.get_credentials()
    if credentials is None:
        return None, None
    frozen = credentials.get_frozen_credentials()
    return frozen.access_key, frozen.token
