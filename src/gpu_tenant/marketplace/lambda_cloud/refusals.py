# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What Lambda says no with: codes as its OpenAPI has them, statuses as its paths list them."""

from __future__ import annotations

from typing import Any

from ..refusals import MarketError

_NO_BETTER = "Choose an instance type with more availability, or try again later."


def refusal(status: int, code: str, message: str, suggestion: str = "") -> MarketError:
    return MarketError(status, code, message, suggestion=suggestion)


def refusal_body(error: MarketError) -> dict[str, Any]:
    """``{"error": {"code", "message", "suggestion"}}``; what the market itself refuses has a code of its own."""
    code = error.code if "/" in error.code else "global/invalid-parameters"
    told = {"code": code, "message": error.message}
    suggestion = error.extra.get("suggestion")
    return {"error": {**told, "suggestion": suggestion} if suggestion else told}


def bad(message: str) -> MarketError:
    return refusal(400, "global/invalid-parameters", f"Invalid request data: {message}")


def missing(message: str, status: int = 404) -> MarketError:
    return refusal(status, "global/object-does-not-exist", message, "Check that it exists and try again.")


def no_such_instance() -> MarketError:
    return refusal(404, "global/object-does-not-exist", "Specified instance does not exist.")


def no_capacity() -> MarketError:
    code = "instance-operations/launch/insufficient-capacity"
    return refusal(400, code, "Not enough capacity to fulfill launch request.", _NO_BETTER)


def bad_key() -> MarketError:
    message = "API key was invalid, expired, or deleted."
    return refusal(401, "global/invalid-api-key", message, "Check your API key or create a new one, then try again.")
