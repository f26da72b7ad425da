"""Whether the record of an agent's one run adds up, and what was denied in it.

    account.py AGENT [--exactly "COUNT VERB PATTERN"]... [--names PATTERN]... [--outcomes FILE]
    account.py AGENT --not-below DIRECTORY [--outcomes FILE]

Compares the kernel's counters, as the daemon's metrics show them, with the ledger: every decision is
in the record or counted as lost. The denials must be those of --exactly and no others: PATTERN is a path,
or "ADDRESS PORT/PROTOCOL", COUNT may be "any". Names that were not asked for must be those of --names. Or, with
--not-below, any but those that blame the rules for a name below a directory that they allow. FILE has what
the agent itself counted, which the kernel's counters must equal. Prints the figures, then every
problem; the exit code is 1 if there is one."""

import argparse
import collections
import fnmatch
import glob
import json
import re
import sys
import time
import urllib.request

LEDGER = "/var/lib/agentguard/ledger/*.jsonl"
METRICS = "http://127.0.0.1:9470/metrics"
# Fields stand in this order (docs/events.md); a path cannot hold an unescaped quote.
DECISION = re.compile(rb'"verb":"([a-z]+)".*"verdict":"([a-z]+)".*"count":([0-9]+)')
# Denials that are kept whole; a storm of them is only counted, by what they are about.
KEPT = 20_000
# Reasons for which more is refused than the rules of a manifest say (docs/events.md): devices, mounts,
# names too deep, the protected set, other processes.
NOT_BY_RULES = {"device", "privilege", "forbidden", "too-deep", "protected", "outside-run"}
# Longest wait for the record of a run that has ended, in an emulated machine.
PATIENCE = 300


def metrics():
    """Counters by name and labels."""
    with urllib.request.urlopen(METRICS) as page:
        lines = page.read().decode().splitlines()
    for line in lines:
        found = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line)
        if found:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', found[2]))
            yield found[1], labels, int(float(found[3]))


def counted(agent):
    """What the kernel counted, by verb and verdict."""
    counts = collections.Counter()
    for name, labels, value in metrics():
        if name == "agentguard_decisions_total" and labels["agent"] == agent:
            counts[labels["verb"], labels["verdict"]] += value
    return counts


def ended(agent):
    """The event with which the agent's run ended."""
    deadline = time.monotonic() + PATIENCE
    wanted = f'"agent":"{agent}"'.encode()
    while time.monotonic() < deadline:
        for file in glob.glob(LEDGER):
            with open(file, "rb") as lines:
                for line in lines:
                    if b'"kind":"run-ended"' in line and wanted in line:
                        return json.loads(line)
        time.sleep(1)
    sys.exit(f"{agent}: no run of it has ended within {PATIENCE} s")


class Record:
    """What the ledger has of a run."""

    def __init__(self, run, allowed):
        self.allowed = allowed
        # Kernel records, and repeats that it counted.
        self.kept = 0
        self.decisions = collections.Counter()
        self.denials = []
        self.about = collections.Counter()
        # Names that the resolver did not ask for: no records of the kernel, nor counted by it.
        self.unasked = collections.Counter()
        self.wrong = []
        wanted = f'"run":"{run}"'.encode()
        for file in sorted(glob.glob(LEDGER)):
            with open(file, "rb") as lines:
                for line in lines:
                    if wanted in line:
                        self.take(line)

    def take(self, line):
        # Flows that are alike are told together, too.
        if b'"kind":"flow"' in line:
            self.kept += json.loads(line)["count"]
            return
        if b'"kind":"decision"' not in line:
            # The end of the run is a kernel record like the others, without a number.
            self.kept += b'"run_seq":' in line or b'"kind":"run-ended"' in line
            return
        verb, verdict, count = DECISION.search(line).groups()
        if b'"address":null' in line and b'"pid":' not in line:
            self.unasked[json.loads(line)["object"]["name"] or "?"] += int(count)
            return
        self.kept += int(count)
        self.decisions[verb.decode(), verdict.decode()] += int(count)
        if verdict != b"allow":
            event = json.loads(line)
            path = event["object"].get("path") or "-"
            about = re.sub(r"[0-9]+", "N", path)[:60]
            self.about[event["verb"], event["reason"], event["rule"] or "-", about] += event["count"]
            if self.allowed and path.startswith(self.allowed) and event["reason"] not in NOT_BY_RULES:
                self.wrong.append(line)
            if len(self.denials) < KEPT:
                self.denials.append(line)


def denied(counts):
    return sum(count for (_, verdict), count in counts.items() if verdict != "allow")


def sums(end, record, counts):
    """What does not add up."""
    lost = sum(end["lost"][where] for where in ("kernel", "ledger", "daemon"))
    if end["events"] != end["recorded"] + lost:
        yield f"{end['events']} records made, {end['recorded']} recorded, {lost} counted as lost"
    if record.kept != end["recorded"]:
        yield f"{end['recorded']} recorded, and {record.kept} in the ledger"
    if end["complete"] != (lost == 0):
        yield f"complete is {end['complete']}, and {lost} are lost"
    if denied(counts) != end["denials"]:
        yield f"{denied(counts)} denials counted in the kernel, {end['denials']} for the run"
    missing = end["denials"] - denied(record.decisions)
    if missing < 0 or missing > 0 == lost:
        yield f"{missing} denials are missing in the ledger, and {lost} records are lost"
    for key, count in record.decisions.items():
        if count > counts[key]:
            yield f"{count} times {key} in the ledger, {counts[key]} counted in the kernel"


def place(about):
    """An event's object as --exactly says it."""
    if about.get("address"):
        return f"{about['address']} {about['port']}/{about['protocol']}"
    return about.get("path") or "?"


def not_asked(patterns, record):
    """Names that should have been asked for."""
    print(f"    {sum(record.unasked.values())} questions for {len(record.unasked)} names were not asked")
    for name in record.unasked:
        if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            yield f"NOT ASKED: {name}, {record.unasked[name]} times"


def expected(wanted, record):
    """Denials beyond those wanted, and those wanted that are not there."""
    left = list(wanted)
    found = collections.Counter()
    if len(record.denials) >= KEPT:
        yield f"more than {KEPT} records of denials: not all were looked at"
    for line in record.denials:
        event = json.loads(line)
        said = f"{event['verb']} {place(event['object'])}"
        match = next((rule for rule in left if fnmatch.fnmatch(said, rule.split(" ", 1)[1])), None)
        if match is None:
            yield f"WRONG DENIAL: {line.decode().strip()}"
        found[match] += event["count"]
    for rule in left:
        count = rule.split(" ", 1)[0]
        if count == "any":
            print(f"    {found[rule]:>9} times {rule.split(' ', 1)[1]}")
        elif found[rule] != int(count):
            yield f"denied {found[rule]} times, expected {count}: {rule.split(' ', 1)[1]}"


def miscounted(file, counts):
    """What the agent counted and the kernel did not, or the other way round."""
    with open(file) as outcomes:
        for key, count in json.load(outcomes).items():
            verb, verdict = key.split()
            if counts[verb, verdict] != count:
                yield f"{verb} {verdict}: the agent saw {count}, the kernel counted {counts[verb, verdict]}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("agent")
    parser.add_argument("--exactly", action="append", default=[])
    parser.add_argument("--names", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--not-below", metavar="DIRECTORY")
    parser.add_argument("--outcomes")
    arguments = parser.parse_args()
    end = ended(arguments.agent)
    counts = counted(arguments.agent)
    record = Record(end["run"], arguments.not_below)
    print(
        f"{arguments.agent}: {sum(counts.values())} decisions, {denied(counts)} of them denials;"
        f" {end['events']} records made, {end['recorded']} in the ledger,"
        f" lost {end['lost']['kernel']} (kernel) {end['lost']['ledger']} (ledger)"
        f" {end['lost']['daemon']} (daemon)"
    )
    for (verb, verdict), count in sorted(counts.items()):
        told = record.decisions[verb, verdict]
        print(f"    {verb:<10} {verdict:<5} {count:>9} counted, {told:>9} in the ledger")
    problems = list(sums(end, record, counts))
    if arguments.not_below:
        problems += [f"WRONG DENIAL: {line.decode().strip()}" for line in record.wrong[:20]]
        for about, count in record.about.most_common(25):
            print(f"    {count:>9} times {' '.join(about)}")
    else:
        problems += expected(arguments.exactly, record)
    if record.unasked or arguments.names:
        problems += not_asked(arguments.names, record)
    if arguments.outcomes:
        problems += miscounted(arguments.outcomes, counts)
    for problem in problems:
        print(f"problem: {problem}")
    sys.exit(bool(problems))


main()
