# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""An account on EC2, in one region: looked at by boto3, changed by the modules of ``amazon.aws``.

Looking needs no play, so that ``status`` and ``watch`` see the same boxes. Every change is one run of a module, which
an action plugin lends (``run_module``); a client without one refuses to change anything.

A Spot Instance is asked for with a request that carries the stamp; the instance has it only once it is tagged. So a
row is an instance and its request together, or a request that nothing has come of yet.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import re
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

from .. import boto_session
from ..failures import TenantFailure
from ..rest_client import Reply, RestClient, RestError

STAMP_TAG = "gpu-tenant-stamp"
# How one logs in, as user:port, which depends on the machine image and which EC2 does not tell.
LOGIN_TAG = "gpu-tenant-login"
_STAMPED = ({"Name": "tag-key", "Values": [STAMP_TAG]},)
# States of a request that nothing more will come of.
ENDED_REQUESTS = ("closed", "cancelled", "failed")
GONE = "terminated"
_INSTANCE = re.compile(r"i-[0-9a-f]{8,32}\Z")
_REQUEST = re.compile(r"sir-[0-9a-z]{8,32}\Z")
# Why EC2 has no machine for us now; it may have one later, or of another type.
_NO_CAPACITY = ("InsufficientInstanceCapacity", "InsufficientCapacity", "SpotMaxPriceTooLow", "Unsupported")
# Answers of a server in trouble, which do not say what it did before.
_ITS_OWN_TROUBLE = ("InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable", "500", "502", "503", "504")
_AUTH = ("AuthFailure", "UnauthorizedOperation", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken",
         "RequestExpired", "OptInRequired", "Blocked", "UnrecognizedClientException")  # fmt: skip
_QUOTA = ("MaxSpotInstanceCountExceeded", "VcpuLimitExceeded", "InstanceLimitExceeded")
_CLIENT_ERROR = re.compile(
    r"ClientError: An error occurred \(([\w.-]+)\) when calling the \w+ operation(?: \([^)]*\))?: ([^\n]*)"
)
_BOTOCORE_ERROR = re.compile(r"^botocore\.exceptions\.(\w+: [^\n]*)", re.MULTILINE)
_COLLECTION = "amazon.aws"

RunModule = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]


class Ec2Client(RestClient[Reply]):
    """:param region: empty for what the AWS configuration of this machine says.
    :param profile: of ``~/.aws/config``; empty for the usual order of credentials.
    """

    PLATFORM = "aws_spot"
    REPLY = Reply
    URL_VARIABLE = "AWS_ENDPOINT_URL_EC2"

    def __init__(
        self,
        region: str = "",
        profile: str = "",
        base_url: str = "",
        run_module: RunModule | None = None,
        **settings: Any,
    ) -> None:
        _require_boto3()
        self._given_url, self.profile, self.run_module = base_url, profile, run_module
        timeout_s = float(settings.get("timeout_s", 30.0))
        with self._speaking():
            self._ec2, secret, who = _connect(region, profile, base_url, timeout_s)
        self.region = str(self._ec2.meta.region_name)
        self._who = profile or who
        super().__init__(secret, str(self._ec2.meta.endpoint_url), **settings)
        self._kinds: dict[str, Mapping[str, Any]] = {}

    @classmethod
    def from_variables(cls, driver: str, value: Callable[[str], Any], **settings: Any) -> Ec2Client:
        """No key of ours: AWS's own chain finds it (environment, ``~/.aws``, the role of this machine)."""
        return cls(
            str(value(f"{driver}_region") or ""),
            str(value(f"{driver}_profile") or ""),
            str(value(f"{driver}_api_url") or ""),
            **settings,
        )

    @property
    def account(self) -> str:
        """Keys of a role change within the hour, and must not make another account of it."""
        return hashlib.sha256(f"{self.base_url}\0{self.region}\0{self._who}".encode()).hexdigest()[:16]

    @classmethod
    def also_at(cls, driver: str, value: Callable[[str], Any], **settings: Any) -> list[RestClient[Any]]:
        """The same account in the regions that an audit is to look at beside those of its boxes."""
        named = value(f"{driver}_audit_regions") or []
        regions = named.split(",") if isinstance(named, str) else named
        profile, url = (str(value(f"{driver}_{name}") or "") for name in ("profile", "api_url"))
        return [cls(str(region).strip(), profile, url, **settings) for region in regions]

    # -- reads ---------------------------------------------------------------------------------------------------

    def list_instances(self) -> list[dict[str, Any]]:
        """Every instance and every open request that carries a stamp. Others' are never asked for."""
        requests = self._requests()
        instances = {one["InstanceId"]: one for one in self._instances(Filters=_STAMPED)}
        untagged = sorted({str(one["InstanceId"]) for one in requests if one.get("InstanceId")} - instances.keys())
        for start in range(0, len(untagged), 100):
            some = [{"Name": "instance-id", "Values": untagged[start : start + 100]}]
            instances.update((one["InstanceId"], one) for one in self._instances(Filters=some))
        living = [one for one in instances.values() if one["State"]["Name"] != GONE]
        waiting = [one for one in requests if not one.get("InstanceId") and one["State"] not in ENDED_REQUESTS]
        return self._rows(living, requests) + [_waiting_row(one) for one in waiting]

    def get_instance(self, provider_id: str) -> dict[str, Any] | None:
        """One instance, or what came of one request; None once EC2 says that it is not there, or terminated."""
        if _REQUEST.match(provider_id):
            return self._of_request(provider_id)
        if not _INSTANCE.match(provider_id):
            raise TenantFailure("config", f"{ascii(provider_id)[:60]} is not the id of an instance")
        try:
            found = [one for one in self._instances(InstanceIds=[provider_id]) if one["State"]["Name"] != GONE]
        except RestError as error:
            if error.code == "InvalidInstanceID.NotFound":
                return None
            raise
        if not found:
            return None
        return self._rows(found, self._requests())[0]

    def get_request(self, request_id: str) -> dict[str, Any] | None:
        """One Spot request; None where EC2 does not know it (yet)."""
        try:
            found = self._ask("describe_spot_instance_requests", SpotInstanceRequestIds=[request_id])
        except RestError as error:
            if error.code == "InvalidSpotInstanceRequestID.NotFound":
                return None
            raise
        return next(iter(found["SpotInstanceRequests"]), None)

    def get_image(self, image: str) -> dict[str, Any] | None:
        """A machine image; None when there is none of that id in the region, or none for this account."""
        try:
            found = self._ask("describe_images", ImageIds=[image])["Images"]
        except RestError as error:
            if error.code.startswith("InvalidAMIID"):
                return None
            raise
        return next((one for one in found if one.get("ImageId") == image), None)

    def get_kind(self, kind: str) -> Mapping[str, Any]:
        """An instance type; empty where the region has none of that name."""
        if kind not in self._kinds:
            try:
                found = self._ask("describe_instance_types", InstanceTypes=[kind])["InstanceTypes"]
            except RestError as error:
                if error.code not in ("InvalidInstanceType", "InvalidParameterValue"):
                    raise
                found = []
            self._kinds[kind] = next(iter(found), {})
        return self._kinds[kind]

    def spot_price(self, kind: str, zone: str = "") -> float | None:
        """What an hour of the type costs now, in dollars: in that zone, else in the cheapest. None where it is not
        told."""
        now = datetime.datetime.now(datetime.timezone.utc)
        asked = {"InstanceTypes": [kind], "ProductDescriptions": ["Linux/UNIX"], "StartTime": now}
        history = self._ask("describe_spot_price_history", **asked)["SpotPriceHistory"]
        latest: dict[str, Mapping[str, Any]] = {}
        for one in history:
            place = str(one.get("AvailabilityZone"))
            if place not in latest or one["Timestamp"] > latest[place]["Timestamp"]:
                latest[place] = one
        prices = [float(one["SpotPrice"]) for place, one in latest.items() if zone in ("", place)]
        return min(prices, default=None)

    def left_volumes(self, stamps: Iterable[str]) -> list[dict[str, Any]]:
        """Volumes of these stamps, whatever uses them; they bill until they are deleted."""
        wanted = sorted(stamps)
        if not wanted:
            return []
        return self._pages("describe_volumes", "Volumes", Filters=[{"Name": f"tag:{STAMP_TAG}", "Values": wanted}])

    def unstamped_instances(self) -> list[dict[str, Any]]:
        """Instances of the region that are none of ours, by their own tags and by those of their requests."""
        ours = {str(one["InstanceId"]) for one in self._requests() if one.get("InstanceId")}
        living = [one for one in self._instances() if one["State"]["Name"] != GONE and one["InstanceId"] not in ours]
        return [one for one in living if STAMP_TAG not in [tag["Key"] for tag in one.get("Tags") or []]]

    def list_volumes(self) -> list[dict[str, Any]]:
        """Every volume of the region, whoever made it."""
        return self._pages("describe_volumes", "Volumes")

    # -- writes --------------------------------------------------------------------------------------------------

    def ensure_key(self, name: str, public_key: str) -> None:
        """The public key under a name of its own; one that is there already is left as it is."""
        self._change("ec2_key", {"name": name, "key_material": public_key, "force": False}, once=False)

    def request_spot(self, order: Mapping[str, Any]) -> str:
        """Ask for one Spot Instance; the request's id. EC2 takes a second one with the same token for the first."""
        done = self._change("ec2_spot_instance", {"state": "present", "count": 1, **order}, once=True)
        request = done.get("spot_request")
        found = str(request.get("spot_instance_request_id", "")) if isinstance(request, Mapping) else ""
        if not _REQUEST.match(found):
            raise self.AMBIGUOUS("the request was answered without its id", 200, "malformed")
        return found

    def cancel_request(self, request_id: str) -> None:
        """Nothing comes of a cancelled request any more; an instance that came of it stays."""
        order = {"state": "absent", "spot_instance_request_ids": [request_id]}
        self._change("ec2_spot_instance", order, once=False)

    def tag(self, ids: Sequence[str], tags: Mapping[str, str]) -> None:
        for one in ids:
            self._change("ec2_tag", {"resource": one, "tags": dict(tags), "state": "present"}, once=False)

    def destroy_instance(self, provider_id: str) -> bool:
        """Terminate; False when it was gone already. A request is cancelled, and what came of it is terminated."""
        instance = provider_id
        if _REQUEST.match(provider_id):
            self.cancel_request(provider_id)
            instance = str((self.get_request(provider_id) or {}).get("InstanceId") or "")
            if not instance:
                return True
        order = {"state": "absent", "instance_ids": [instance], "wait": False}
        return bool(self._change("ec2_instance", order, once=False).get("changed"))

    # -- plumbing ------------------------------------------------------------------------------------------------

    def _change(self, name: str, order: Mapping[str, Any], once: bool) -> Mapping[str, Any]:
        """One run of a module of amazon.aws. RestError; AmbiguousAnswer where nobody knows what it did."""
        if self.run_module is None:
            raise TenantFailure(
                "config", f"{_COLLECTION}.{name} runs in a play only", safe="nothing was asked", fix="run the playbook"
            )
        place = {"region": self.region, "profile": self.profile, "endpoint_url": self._given_url}
        done = self.run_module(f"{_COLLECTION}.{name}", {**{key: at for key, at in place.items() if at}, **order})
        if not done.get("failed"):
            return done
        code, said = refusal_in(done)
        raise self._error(name, code, 0, said, once)

    def _error(self, what: str, code: str, status: int, said: str, once: bool) -> RestError:
        said = self.redact(said)
        certain = bool(code) and code not in _ITS_OWN_TROUBLE
        if code in _AUTH:
            fix = (
                "see to the credentials, and to what their policy allows; docs/platforms/aws_spot.md lists what we call"
            )
            return self.ERROR(
                f"EC2 refused {what} ({code}: {said})", status, "auth_error", "nothing was changed", fix, "config"
            )
        text = f"{what} failed{f' with {code}' if code else ''}: {said}"
        if once and not certain:
            return self.AMBIGUOUS(text, status, code or "unanswered", "it may have had its effect")
        if code in _NO_CAPACITY:
            return self.ERROR(text, status, "no_capacity", "nothing was changed")
        if code in _QUOTA:
            fix = "ask AWS for a higher quota of Spot vCPUs of this family (Service Quotas), or end other instances"
            return self.ERROR(text, status, code, "nothing was changed", fix)
        safe = "EC2 refused it, and nothing was changed by it" if certain else "it was asked and may be asked again"
        return self.ERROR(text, status, code or "unanswered", safe, "correct what it names, then run again")

    def _ask(self, call: str, **about: Any) -> dict[str, Any]:
        with self._speaking():
            return self._answer(getattr(self._ec2, call)(**about))

    def _pages(self, call: str, field: str, **about: Any) -> list[dict[str, Any]]:
        with self._speaking():
            pages = [self._answer(page) for page in self._ec2.get_paginator(call).paginate(**about)]
        return [row for page in pages for row in page[field]]

    def _answer(self, answer: dict[str, Any]) -> dict[str, Any]:
        self.note_date(answer["ResponseMetadata"]["HTTPHeaders"].get("date") or "")
        return answer

    def _instances(self, **about: Any) -> list[dict[str, Any]]:
        return [one for some in self._pages("describe_instances", "Reservations", **about) for one in some["Instances"]]

    def _requests(self) -> list[dict[str, Any]]:
        return self._pages("describe_spot_instance_requests", "SpotInstanceRequests", Filters=_STAMPED)

    def _of_request(self, request_id: str) -> dict[str, Any] | None:
        request = self.get_request(request_id)
        if request is None:
            return None
        if request.get("InstanceId"):
            return self.get_instance(str(request["InstanceId"]))
        return None if request["State"] in ENDED_REQUESTS else _waiting_row(request)

    def _rows(self, instances: Sequence[dict[str, Any]], requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        by_instance = {str(one["InstanceId"]): one for one in requests if one.get("InstanceId")}
        places = {(one["InstanceType"], str(one["Placement"].get("AvailabilityZone") or "")) for one in instances}
        prices = {place: self.spot_price(*place) for place in places}
        sizes = self._sizes(instances)
        return [
            {
                "id": one["InstanceId"],
                "instance": one,
                "request": by_instance.get(one["InstanceId"]),
                "kind": self.get_kind(one["InstanceType"]),
                "spot_price": prices[(one["InstanceType"], str(one["Placement"].get("AvailabilityZone") or ""))],
                "volume_gb": sum(sizes.get(volume, 0) for volume in volumes_of(one)),
            }
            for one in instances
        ]

    def _sizes(self, instances: Sequence[dict[str, Any]]) -> dict[str, int]:
        wanted = [volume for one in instances for volume in volumes_of(one)]
        if not wanted:
            return {}
        rows = self._pages("describe_volumes", "Volumes", Filters=[{"Name": "volume-id", "Values": wanted}])
        return {str(row["VolumeId"]): int(row.get("Size") or 0) for row in rows}

    @contextlib.contextmanager
    def _speaking(self) -> Iterator[None]:
        """What botocore raises, as a failure that names the fix."""
        import botocore.exceptions as errors

        try:
            yield
        except errors.ClientError as error:
            told, about = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
            status, said = int(about.get("HTTPStatusCode") or 0), str(told.get("Message") or "no reason given")
            raise self._error(error.operation_name, str(told.get("Code") or ""), status, said, once=False) from None
        except (errors.NoCredentialsError, errors.PartialCredentialsError, errors.CredentialRetrievalError) as error:
            fix = (
                "set up credentials as for any AWS tool: aws_spot_profile, AWS_ACCESS_KEY_ID and its secret, or a role"
            )
            raise _config(f"there are no usable AWS credentials ({type(error).__name__})", fix) from None
        except errors.ProfileNotFound:
            what = f"there is no AWS profile {self.profile!a} here"
            raise _config(what, "name one of ~/.aws/config in aws_spot_profile") from None
        except (errors.NoRegionError, errors.InvalidRegionError):
            raise _config("no AWS region is named", "set aws_spot_region, such as us-east-1") from None
        except (errors.HTTPClientError, errors.ConnectionError) as error:
            what = f"EC2 at {self._given_url or 'its regional address'} got no answer ({type(error).__name__})"
            fix = "check the network, aws_spot_region and aws_spot_api_url, then run again"
            raise self.ERROR(what, 0, "unanswered", "it was only a question", fix) from None
        except (errors.BotoCoreError, ValueError) as error:
            raise _config(
                f"boto3 gave up ({type(error).__name__})", "see aws_spot_region and aws_spot_api_url"
            ) from None


def refusal_in(result: Mapping[str, Any]) -> tuple[str, str]:
    """EC2's code and words in the result of a failed module; no code where none of EC2's came.

    Some modules give the answer, some only a ``traceback`` that ends in it.
    """
    error = result.get("error")
    if isinstance(error, Mapping) and error.get("code"):
        return str(error["code"]), str(error.get("message") or "no reason given")
    traceback = str(result.get("traceback") or "")
    told = _CLIENT_ERROR.search(traceback)
    if told is not None:
        return told.group(1), told.group(2).strip()
    raised = _BOTOCORE_ERROR.findall(traceback)
    return "", raised[0].strip() if raised else str(result.get("msg") or "no reason given")


def volumes_of(instance: Mapping[str, Any]) -> list[str]:
    """The ids of the EBS volumes that are attached to an instance."""
    mapped = [one.get("Ebs") or {} for one in instance.get("BlockDeviceMappings") or []]
    return [str(one["VolumeId"]) for one in mapped if one.get("VolumeId")]


def _waiting_row(request: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": request["SpotInstanceRequestId"], "instance": None, "request": request}


def _connect(region: str, profile: str, url: str, timeout_s: float) -> tuple[Any, str, str]:
    """The client, the secret that must not be shown, and who asks: a name that outlives keys of a role."""
    import botocore.exceptions as errors
    from botocore.config import Config

    session = boto_session.new_session(profile, region)
    retries = {"mode": "standard", "total_max_attempts": 4}
    config = Config(connect_timeout=timeout_s, read_timeout=timeout_s, retries=retries)
    client = session.client("ec2", endpoint_url=url or None, config=config)
    credentials = session.get_credentials()
    if credentials is None:
        raise errors.NoCredentialsError
    held = credentials.get_frozen_credentials()
    if not held.access_key or not held.secret_key:
        raise errors.NoCredentialsError
    return client, str(held.secret_key), str(credentials.method) if held.token else str(held.access_key)


def _config(what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", what, safe="nothing was asked", fix=fix)


def _require_boto3() -> None:
    if not boto_session.is_installed():
        raise _config("boto3 is not installed on the controller", "install it where Ansible runs: pip install boto3")
