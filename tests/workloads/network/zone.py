"""The names of the network cases, as configuration of dnsmasq and of unbound, and for the programs that ask.

    zone.py DIRECTORY NETWORK     writes NETWORK.dnsmasq, NETWORK.unbound with its zones, and lists of the names

200 names that the policies allow, of ten kinds (TTLs 0, 1, 5 and 300; A, AAAA, both, several of each; one
and two CNAME links; more records than fit a datagram), and ten that they do not."""

import collections
import json
import sys

NETWORKS = {"a": ("198.51.100.", "2001:db8:1::"), "b": ("203.0.113.", "2001:db8:2::")}
NAMES = 200
UNLISTED = 10

# One record: its type, data, and TTL.
Record = collections.namedtuple("Record", "type data ttl")


class Zone:
    def __init__(self, network):
        self.v4, self.v6 = NETWORKS[network]
        self.records = collections.defaultdict(list)
        # What programs read: names, each with all its addresses.
        self.listed = {}
        self.unlisted = {}
        for number in range(NAMES):
            self.add(number)
        for number in range(UNLISTED):
            name = f"x{number:03}.other.example"
            self.unlisted[name] = self.give(name, 0, [240 + number], [0xF0 + number])

    def give(self, name, ttl, v4, v6):
        addresses = [f"{self.v4}{host}" for host in v4] + [f"{self.v6}{host:x}" for host in v6]
        for address in addresses:
            self.records[name].append(Record("AAAA" if ":" in address else "A", address, ttl))
        return addresses

    def alias(self, name, target, ttl):
        self.records[name].append(Record("CNAME", target, ttl))

    def add(self, number):
        name, behind, last = (f"s{number:03}.svc.example", f"c{number:03}.cdn.example", f"e{number:03}.edge.example")
        # From 10 to 209: those above are of the names with many.
        host, other, third = (10 + (number + more) % NAMES for more in (0, 37, 74))
        kind = number % 10
        if number % 20 == 19:
            name = f"b{number:03}.big.example"
            v4, v6 = range(210, 240), range(0x1000, 0x1000 + 50)
            self.listed[name] = self.give(name, 1, v4, v6)
        elif kind in (0, 1, 7):
            self.listed[name] = self.give(name, (0, 1, 300)[min(kind, 2)], [host], [])
        elif kind in (2, 3):
            self.listed[name] = self.give(name, kind - 2, [], [host])
        elif kind in (4, 9):
            self.listed[name] = self.give(name, int(kind == 4), [host], [host])
        elif kind == 5:
            self.alias(name, behind, 1)
            self.listed[name] = self.give(behind, 1, [host], [])
        elif kind == 6:
            self.alias(name, behind, 0)
            self.alias(behind, last, 300)
            self.listed[name] = self.give(last, 1, [host], [host])
        else:
            self.listed[name] = self.give(name, 5, [host, other, third], [host, other])

    def dnsmasq(self):
        for name, records in self.records.items():
            for kind, data, ttl in records:
                yield f"cname={name},{data},{ttl}" if kind == "CNAME" else f"host-record={name},{data},{ttl}"

    def zones(self):
        """Lines by the zone's name: one zone file each, so that unbound follows CNAMEs between zones."""
        soa = "@ 60 IN SOA ns.example. root.example. 1 3600 600 86400 1"
        zones = collections.defaultdict(lambda: [soa, "@ 60 IN NS ns.example."])
        for name, records in self.records.items():
            for kind, data, ttl in records:
                dot = "." if kind == "CNAME" else ""
                zones[name.split(".", 1)[1]].append(f"{name}. {ttl} IN {kind} {data}{dot}")
        return zones


def main():
    directory, network = sys.argv[1:]
    zone = Zone(network)

    def write(name, lines):
        with open(f"{directory}/{name}", "w") as file:
            file.writelines(f"{line}\n" for line in lines)

    write(f"{network}.dnsmasq", zone.dnsmasq())
    config = []
    for name, lines in zone.zones().items():
        write(f"{network}.{name}.zone", lines)
        # Not answered from as an authority, but asked: its records then have a TTL that runs down.
        config += ["auth-zone:", f' name: "{name}."', f' zonefile: "{directory}/{network}.{name}.zone"']
        config += [" for-downstream: no", " for-upstream: yes", " fallback-enabled: no"]
    write(f"{network}.unbound", config)
    write(f"{network}.json", [json.dumps({"listed": zone.listed, "unlisted": zone.unlisted})])
    # For programs that are shell scripts: number, name, addresses.
    rows = [" ".join([name, *addresses]) for name, addresses in zone.listed.items()]
    write(f"{network}.listed", rows)
    write(f"{network}.unlisted", [" ".join([name, *addresses]) for name, addresses in zone.unlisted.items()])


main()
