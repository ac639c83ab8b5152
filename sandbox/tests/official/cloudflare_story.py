"""Zones and records with the official Cloudflare client (PyPI `cloudflare`), on its typed values.

Usage: python3 cloudflare_story.py URL TOKEN ADMIN_URL
"""

import json
import sys
import urllib.request

import cloudflare
from cloudflare import Cloudflare

URL, TOKEN, ADMIN = sys.argv[1:4]
ZONE = "example.com"


def client(token=TOKEN):
    return Cloudflare(api_token=token, base_url=URL, max_retries=0)


def admin(path, body):
    """The simulator's side door, past the client."""
    request = urllib.request.Request(
        f"{ADMIN}/_sandbox/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).read()


def knobs(**change):
    admin("knobs", change)


def fault(**action):
    admin("faults", {"path_regex": "/zones$", "action": action, "times": 1})


def refused(kind, code, call):
    try:
        call()
    except cloudflare.APIStatusError as error:
        assert isinstance(error, kind), (type(error), error)
        assert [one.code for one in error.errors] == [code], error
        return error
    raise AssertionError(f"{kind.__name__} was expected")


api = client()
assert api.user.tokens.verify().status == "active"
[zone] = list(api.zones.list(name=ZONE))
assert (zone.name, zone.status, zone.type, zone.paused) == (ZONE, "active", "full", False)
assert api.zones.get(zone_id=zone.id).name_servers == zone.name_servers
assert list(api.zones.list(name="nobody.example")) == []

records = api.dns.records
made = records.create(zone_id=zone.id, type="A", name="shop.example.com", content="203.0.113.7", ttl=300,
                      proxied=False, comment="ours")
assert (made.type, made.content, made.ttl, made.proxied, made.comment) == ("A", "203.0.113.7", 300, False, "ours")
assert made.created_on is not None and made.proxiable is True
[found] = list(records.list(zone_id=zone.id, name={"exact": "shop.example.com"}, type="A"))
assert found.id == made.id
changed = records.edit(made.id, zone_id=zone.id, type="A", name="shop.example.com", content="203.0.113.8", ttl=300)
assert (changed.content, changed.comment) == ("203.0.113.8", "ours")
proxied = records.update(made.id, zone_id=zone.id, type="A", name="shop", content="203.0.113.8", ttl=300, proxied=True)
assert (proxied.name, proxied.ttl, proxied.proxied, proxied.comment) == ("shop.example.com", 1, True, None)
assert records.get(made.id, zone_id=zone.id).content == "203.0.113.8"
caa = records.create(zone_id=zone.id, type="CAA", name=ZONE, data={"flags": 0, "tag": "issue", "value": "letsencrypt.org"},
                     ttl=1)
assert caa.content == '0 issue "letsencrypt.org"', caa.content

same = {"zone_id": zone.id, "type": "A", "name": "shop.example.com", "content": "203.0.113.8", "ttl": 300}
refused(cloudflare.BadRequestError, 81058, lambda: records.create(**same))
refused(cloudflare.BadRequestError, 81053, lambda: records.create(**{**same, "type": "CNAME", "content": "a.example"}))
records.create(zone_id=zone.id, type="CNAME", name="alias", content="shop.example.com", ttl=1)
refused(cloudflare.BadRequestError, 81054, lambda: records.create(**{**same, "name": "alias"}))
refused(cloudflare.BadRequestError, 9005, lambda: records.create(**{**same, "content": "no address"}))
refused(cloudflare.BadRequestError, 9021, lambda: records.create(**{**same, "name": "other", "ttl": 5}))
refused(cloudflare.BadRequestError, 9300, lambda: records.create(**{**same, "name": "other", "comment": "x" * 101}))
refused(cloudflare.NotFoundError, 81044, lambda: records.get("0" * 32, zone_id=zone.id))
refused(cloudflare.PermissionDeniedError, 9109, lambda: api.zones.get(zone_id="0" * 32))
refused(cloudflare.AuthenticationError, 1000, lambda: list(client("another_token_for_tests_only").zones.list()))
refused(cloudflare.BadRequestError, 6003, lambda: list(client("short").zones.list()))
knobs(read_only_token=True)
refused(cloudflare.PermissionDeniedError, 10000, lambda: records.delete(made.id, zone_id=zone.id))
knobs(read_only_token=False)

for number in range(120):
    records.create(zone_id=zone.id, type="TXT", name=f"t{number:03}", content='"x"', ttl=300)
paged = [record.name for record in records.list(zone_id=zone.id, type="TXT", per_page=50)]
assert len(paged) == len(set(paged)) == 120, len(paged)
knobs(zones=[ZONE] + [f"zone{number:03}.example" for number in range(119)])
assert len({one.name for one in api.zones.list(per_page=50)}) == 120
refused(cloudflare.BadRequestError, 1002, lambda: api.zones.list(per_page=500))

for record in list(records.list(zone_id=zone.id, per_page=1000)):
    assert records.delete(record.id, zone_id=zone.id).id == record.id
assert list(records.list(zone_id=zone.id)) == []

for kind, status, code in (
    (cloudflare.AuthenticationError, 401, 1000), (cloudflare.PermissionDeniedError, 403, 10000),
    (cloudflare.NotFoundError, 404, 7003), (cloudflare.InternalServerError, 500, 1101),
    (cloudflare.InternalServerError, 503, 1101),
):
    fault(kind="status", code=status)
    refused(kind, code, lambda: api.zones.list())
fault(kind="rate_limit", reset_seconds=7)
assert refused(cloudflare.RateLimitError, 10100, lambda: api.zones.list()).response.headers["retry-after"] == "7"
fault(kind="drop_after")
try:
    api.zones.list()
except cloudflare.APIConnectionError:
    pass
else:
    raise AssertionError("an answer that never came was read")
# Left alone, the client waits for as long as it is told, and goes on.
fault(kind="rate_limit", reset_seconds=1)
assert list(Cloudflare(api_token=TOKEN, base_url=URL, max_retries=1).zones.list(name=ZONE))

knobs(calls=2)
left = [api.zones.with_raw_response.list().headers["ratelimit"] for _ in range(2)]
assert [text.split(";")[1] for text in left] == ["r=1", "r=0"], left
limited = refused(cloudflare.RateLimitError, 10100, lambda: api.zones.list())
assert int(limited.response.headers["retry-after"]) > 200
print("ok")
