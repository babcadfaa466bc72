# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The page at ``/``: what it shows, to whom, and that nobody's text becomes markup."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_market_wire import KEY, Client

EVIL = "<script>alert('x')</script>&\"'<img src=x>"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    made = Client(tmp_path / "state")
    yield made
    made.close()


class Tables(HTMLParser):
    """The rows of each section, and every tag that occurs."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.sections: dict[str, list[list[str]]] = {}
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        self.tags.add(tag)
        self._inside = tag
        if tag == "tr":
            self._rows.append([])

    def handle_endtag(self, _tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "h2":
            self._rows = self.sections.setdefault(data, [])
        elif self._inside in ("td", "th"):
            self._rows[-1].append(data)


def page_of(client: Client, host: str = "127.0.0.1:8383") -> Tables:
    answer = client.http.request("GET", "/", headers={"host": host, "authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    return Tables(answer.text)


def test_an_empty_market_has_offers_and_nothing_else(client: Client) -> None:
    shown = page_of(client).sections
    assert len(shown["Offers, prices on demand"]) == 1 + len(client.market.books.machines)
    assert [title for title, rows in shown.items() if not rows] == [
        "Instances",
        "Bill",
        "Active faults",
        "Held by faults",
    ]


def test_instances_bill_and_active_faults(client: Client) -> None:
    box = client.running(client.offers()[0], label="digits", price=1.0)
    client.call("POST", "/control/faults", {"faults": [{"kind": "outbid", "call": "show", "instance": box}]})
    client.call("POST", "/control/faults", {"faults": [{"kind": "slow", "call": "money", "seconds": 5}]})
    client.row(box)
    shown = page_of(client).sections
    assert [row[:3] for row in shown["Instances"][1:]] == [[str(box), "digits", "outbid"]]
    assert [row[:2] for row in shown["Bill"][1:]] == [[str(box), "digits"]]
    assert [row[1:3] for row in shown["Active faults"][1:]] == [["slow", "money"]], "the other one has struck"
    assert [row[:2] for row in shown["Held by faults"][1:]] == [[str(box), "outbid"]]


def test_text_of_a_tenant_is_text(client: Client) -> None:
    client.running(client.offers()[0], label=EVIL, image=EVIL)
    page = page_of(client)
    assert page.tags.isdisjoint({"script", "img"})
    assert "".join(page.sections["Instances"][1]).count(EVIL) >= 1


def test_it_tells_no_secret(client: Client) -> None:
    made = client.rent(client.offers()[0], env={"TOKEN": "s3cret-of-the-box"})[1]
    text = client.http.request("GET", "/", headers={"host": "localhost"}).text
    assert not [secret for secret in (KEY, "s3cret-of-the-box", made["instance_api_key"]) if secret in text]


@pytest.mark.parametrize("host", ["market.example", "192.0.2.7:8383", "127.0.0.1.example", ""])
def test_it_is_shown_to_this_machine_only(client: Client, host: str) -> None:
    answer = client.http.request("GET", "/", headers={"host": host})
    assert answer.status_code == 403
    assert "Instances" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:8383", "[::1]:8383"])
def test_this_machine_has_these_names(client: Client, host: str) -> None:
    assert page_of(client, host).sections
