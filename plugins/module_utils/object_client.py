# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The controller's hand on an S3 bucket: credentials by boto3's own chain, presigned URLs, and errors that speak."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Protocol, Sequence

from . import boto_session
from .box.names import UnsafeName, check_relative_path
from .failures import TenantFailure

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}\Z")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9_.:\[\]-]+(/[A-Za-z0-9_./-]*)?\Z")
ADDRESSING = ("auto", "path", "virtual")
# What Signature Version 4 admits.
LONGEST_EXPIRY_S = 7 * 24 * 3600
_CONNECT_TIMEOUT_S = 15
_READ_TIMEOUT_S = 60
_SAFE = "Nothing was removed at the source"

_NO_BUCKET = ("NoSuchBucket",)
_NO_OBJECT = ("NoSuchKey", "404", "NotFound", "NoSuchVersion", "NoSuchUpload")
_BAD_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AuthFailure")
_DENIED = ("AccessDenied", "403", "Forbidden", "AllAccessDisabled", "AccountProblem")


class NoObject(Exception):
    """There is no such object, version or upload."""


class Place(Protocol):
    """What every location tells of itself."""

    @property
    def uri(self) -> str: ...

    @property
    def where(self) -> str: ...

    @property
    def reading_fix(self) -> str: ...

    def as_copy(self) -> dict[str, str]: ...


class Readable(Protocol):
    """What every kind of store is read by; :class:`Client` is that of S3."""

    @property
    def location(self) -> Place: ...

    def read(self, path: str, version_id: str = "", most: int = 1 << 30) -> tuple[bytes, str]: ...

    def presigned(self, operation: str, path: str, expires_s: int, **more: Any) -> str: ...


@dataclass(frozen=True)
class Location:
    """A folder in a bucket, and how its store is reached. ``endpoint_url`` is empty for Amazon's own S3."""

    bucket: str
    prefix: str
    endpoint_url: str = ""
    region: str = ""
    profile: str = ""
    addressing: str = "auto"

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def where(self) -> str:
        """The store's name for people."""
        return self.endpoint_url or "Amazon S3"

    @property
    def reading_fix(self) -> str:
        return "Allow these keys s3:GetObject and s3:GetObjectVersion there"

    def key(self, path: str) -> str:
        return f"{self.prefix}/{path}" if self.prefix else path

    def as_copy(self) -> dict[str, str]:
        """The keys of a receipt's copy that say where the objects are; credentials are never among them."""
        more = {"endpoint_url": self.endpoint_url, "region": self.region, "profile": self.profile}
        if self.addressing != "auto":
            more["addressing"] = self.addressing
        return {"uri": self.uri, **{name: value for name, value in more.items() if value}}


def is_uri(text: object) -> bool:
    return isinstance(text, str) and text.startswith("s3://")


def locate(uri: object, settings: Mapping[str, Any] | None = None) -> Location:
    """The location that ``uri`` and the option ``object_store`` name. TenantFailure when they make no sense."""
    options = settings or {}
    bucket, _slash, prefix = (uri[len("s3://") :] if isinstance(uri, str) and is_uri(uri) else "").partition("/")
    prefix = prefix.rstrip("/")
    try:
        if not _BUCKET.match(bucket):
            raise UnsafeName(f"{str(uri)[:200]!a} names no bucket")
        check_relative_path(prefix)
    except UnsafeName as error:
        raise _unusable(str(error), "Write s3://bucket/prefix, with a prefix of its own for each run") from error
    endpoint, addressing = str(options.get("endpoint_url") or ""), str(options.get("addressing") or "auto")
    if endpoint and not _ENDPOINT.match(endpoint):
        raise _unusable(f"endpoint_url {endpoint[:200]!a} is no address", "Write https://host or https://host:port")
    if addressing not in ADDRESSING:
        raise _unusable(f"addressing {addressing!a} is unknown", f"Choose one of {', '.join(ADDRESSING)}")
    region, profile = str(options.get("region") or ""), str(options.get("profile") or "")
    return Location(bucket, prefix, endpoint.rstrip("/"), region, profile, addressing)


def _unusable(what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", what, safe="Nothing was transferred", fix=fix)


# --- errors -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def speaking(location: Location) -> Iterator[None]:
    """Turn what boto3 raises into NoObject or a TenantFailure that names the fix; no message of it quotes a key."""
    import botocore.exceptions as errors

    try:
        yield
    except errors.ClientError as error:
        raise _refused(location, error) from None
    except (errors.NoCredentialsError, errors.PartialCredentialsError, errors.CredentialRetrievalError) as error:
        fix = "Set up credentials as for any AWS tool: a profile, AWS_ACCESS_KEY_ID and its secret, or a role"
        raise _failure(location, "config", f"there are no usable credentials ({type(error).__name__})", fix) from None
    except errors.ProfileNotFound:
        what = f"there is no AWS profile {location.profile!a} here"
        raise _failure(location, "config", what, "Name one of ~/.aws/config in object_store.profile") from None
    except errors.NoRegionError:
        raise _failure(location, "config", "no region is known", "Set object_store.region") from None
    except (errors.HTTPClientError, errors.ConnectionError) as error:
        what = f"the controller cannot reach it ({type(error).__name__})"
        fix = "See object_store.endpoint_url and this machine's network, then run the same task again: it continues"
        raise _failure(location, "unreachable", what, fix) from None
    except errors.BotoCoreError as error:
        what = f"boto3 gave up ({type(error).__name__})"
        raise _failure(location, "provider", what, "See object_store, then run the same task again") from None


def _failure(location: Location, kind: str, what: str, fix: str) -> TenantFailure:
    return TenantFailure(kind, f"{location.uri} at {location.where}: {what}", safe=_SAFE, fix=fix)


def _refused(location: Location, error: Any) -> Exception:
    code = str(error.response.get("Error", {}).get("Code", ""))[:80]
    if code in _NO_BUCKET:
        return _failure(location, "config", "there is no such bucket", "Make the bucket, or correct its name")
    if code in _NO_OBJECT:
        return NoObject(code)
    if code in _BAD_KEYS:
        what = f"the store does not accept the credentials ({code})"
        return _failure(location, "config", what, "See object_store.profile, or renew the keys of this controller")
    if code in _DENIED:
        what = f"access denied to {error.operation_name} ({code})"
        fix = (
            "Allow these keys s3:ListBucket, s3:GetObject(Version), s3:PutObject, s3:AbortMultipartUpload, "
            "s3:ListBucketMultipartUploads and s3:ListMultipartUploadParts there"
        )
        return _failure(location, "config", what, fix)
    what = f"it refused {error.operation_name} ({code or 'no code'})"
    return _failure(location, "provider", what, "Run the same task again: it continues")


# --- the client ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listed:
    """One object as its bucket lists it."""

    bytes: int
    etag: str


@dataclass(frozen=True)
class Upload:
    """A multipart upload that was begun. ``checked``: the store said that it keeps the SHA-256 of each part."""

    path: str
    id: str
    checked: bool


class Client:
    """One bucket's folder. Every method raises TenantFailure when the store refuses or is not there."""

    def __init__(self, location: Location) -> None:
        self.location = location
        _require_boto3(location)
        with speaking(location):
            self._s3 = self._connect(location.region)
            region = self._bucket_region()
            if region and not location.endpoint_url and region != self._s3.meta.region_name:
                # boto3 follows a bucket to its region by itself; a presigned URL cannot.
                self._s3 = self._connect(region)

    def _connect(self, region: str) -> Any:
        from botocore.config import Config

        where = self.location
        addressing = where.addressing
        if addressing == "auto" and where.endpoint_url:
            addressing = "path"
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": addressing},
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": 4},
            # Stores other than Amazon's often refuse what newer boto3 adds by itself.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        session = boto_session.new_session(where.profile)
        chosen = region or session.region_name or ("us-east-1" if where.endpoint_url else None)
        return session.client("s3", region_name=chosen, endpoint_url=where.endpoint_url or None, config=config)

    def _bucket_region(self) -> str:
        try:
            with speaking(self.location):
                reply = self._s3.head_bucket(Bucket=self.location.bucket)
        except NoObject:
            raise _failure(
                self.location, "config", "there is no such bucket", "Make the bucket, or correct its name"
            ) from None
        headers = reply.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return str(headers.get("x-amz-bucket-region") or "")

    def _call(self, operation: str, path: str = "", **more: Any) -> Any:
        where = self.location
        with speaking(where):
            keys = {"Key": where.key(path)} if path else {}
            return getattr(self._s3, operation)(Bucket=where.bucket, **keys, **more)

    # --- objects --------------------------------------------------------------------------------------------------

    def list_objects(self) -> dict[str, Listed]:
        """Every object below the prefix, by its path there."""
        found = {}
        for page in self._pages("list_objects_v2"):
            for entry in page.get("Contents", ()):
                found[self._path(entry["Key"])] = Listed(int(entry["Size"]), str(entry["ETag"]).strip('"'))
        return found

    def _pages(self, operation: str, path: str = "", **more: Any) -> Iterator[Any]:
        where = self.location
        keys = {"Key": where.key(path)} if path else {"Prefix": where.prefix + "/"}
        with speaking(where):
            yield from self._s3.get_paginator(operation).paginate(Bucket=where.bucket, **keys, **more)

    def _path(self, key: str) -> str:
        return key[len(self.location.prefix) + 1 :]

    def read(self, path: str, version_id: str = "", most: int = 1 << 30) -> tuple[bytes, str]:
        """(bytes of an object, its version id). NoObject when it is not there."""
        reply = self._call("get_object", path, **version_of(version_id))
        if int(reply["ContentLength"]) > most:
            raise _failure(self.location, "evidence_missing", f"{path} is absurdly large", "See who writes there")
        with speaking(self.location), contextlib.closing(reply["Body"]) as body:
            return body.read(), pinnable(reply.get("VersionId"))

    def size(self, path: str) -> int:
        """How many bytes an object has. NoObject when it is not there."""
        return int(self._call("head_object", path)["ContentLength"])

    def write(self, path: str, data: bytes) -> str:
        """Write an object; returns its version id, empty where the bucket keeps none."""
        reply = self._call("put_object", path, Body=data, ContentType="application/json")
        return pinnable(reply.get("VersionId"))

    def remove(self, path: str) -> None:
        self._call("delete_object", path)

    def presigned(self, operation: str, path: str, expires_s: int, **more: Any) -> str:
        """A URL that admits one ``operation`` on one object for ``expires_s`` seconds. A secret of its bearer."""
        where = self.location
        with speaking(where):
            parameters = {"Bucket": where.bucket, "Key": where.key(path), **more}
            expires = max(1, min(expires_s, LONGEST_EXPIRY_S))
            return str(self._s3.generate_presigned_url(operation, Params=parameters, ExpiresIn=expires))

    # --- multipart uploads ----------------------------------------------------------------------------------------

    def begin_upload(self, path: str) -> Upload:
        reply = self._call("create_multipart_upload", path, ChecksumAlgorithm="SHA256")
        return Upload(path, str(reply["UploadId"]), reply.get("ChecksumAlgorithm") == "SHA256")

    def list_uploads(self) -> list[Upload]:
        """Every upload below the prefix that was begun and neither completed nor aborted."""
        return [
            Upload(self._path(entry["Key"]), str(entry["UploadId"]), entry.get("ChecksumAlgorithm") == "SHA256")
            for page in self._pages("list_multipart_uploads")
            for entry in page.get("Uploads", ())
        ]

    def list_parts(self, upload: Upload) -> dict[int, Mapping[str, Any]]:
        """The parts that the store has, by number: ``{Size, ETag, ChecksumSHA256 where the store gives it}``."""
        pages = self._pages("list_parts", upload.path, UploadId=upload.id)
        return {int(part["PartNumber"]): part for page in pages for part in page.get("Parts", ())}

    def complete_upload(self, upload: Upload, etags: Sequence[str], checksums: Sequence[str]) -> tuple[str, str]:
        """Make one object of the parts, each with its ETag and checksum; (the object's ETag, its version id)."""
        parts: list[dict[str, Any]] = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        if upload.checked:
            parts = [dict(part, ChecksumSHA256=checksum) for part, checksum in zip(parts, checksums)]
        more = {"UploadId": upload.id, "MultipartUpload": {"Parts": parts}}
        reply = self._call("complete_multipart_upload", upload.path, **more)
        return str(reply.get("ETag", "")).strip('"'), pinnable(reply.get("VersionId"))

    def abort_upload(self, upload: Upload) -> None:
        with contextlib.suppress(NoObject):
            self._call("abort_multipart_upload", upload.path, UploadId=upload.id)


def pinnable(version_id: object) -> str:
    """A version id that stands for the same bytes for ever; ``null`` is the name of whatever lies there unversioned."""
    return "" if version_id in (None, "null") else str(version_id)


def version_of(version_id: str) -> dict[str, str]:
    """The parameter that pins a version; none where the bucket keeps no versions."""
    return {"VersionId": version_id} if version_id else {}


def _require_boto3(location: Location) -> None:
    if not boto_session.is_installed():
        what = "boto3 is not installed on the controller"
        raise _failure(location, "config", what, "Install it where Ansible runs: pip install boto3")
