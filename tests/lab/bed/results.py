"""Counts what the cases of a lab test ended with: lines "HOST| result CASE STATUS" in the output of tests/lab/run."""

import re


def judge(lines: list[str], hosts: int) -> tuple[int, int]:
    """Each case of each round has to end with 0 on every host."""
    statuses: dict[str, list[list[str]]] = {}
    for host in range(hosts):
        for line in lines:
            if match := re.fullmatch(rf"{host}\| result (.+) (\d+)", line):
                statuses.setdefault(match.group(1), [[] for _ in range(hosts)])[host].append(match.group(2))
    passed = failed = 0
    for case, per_host in statuses.items():
        for round_, ends in enumerate(zip(*per_host), 1):
            good = set(ends) == {"0"}
            passed, failed = passed + good, failed + (not good)
            if not good:
                print(f"FAIL {case}, round {round_}: hosts ended with {', '.join(ends)}")
                print("".join(f"  {line}\n" for line in said_by(case, lines)), end="")
        if len({len(ends) for ends in per_host}) != 1:
            print(f"FAIL {case}: not every host has run it as often")
            failed += 1
    return passed, failed


def said_by(case: str, lines: list[str]) -> list[str]:
    """What the case itself has printed: lines "HOST| NAME: ...", NAME without the word for its group ("domain: ")."""
    name = case.rpartition(": ")[2]
    return [line for line in lines if re.match(rf"\d+\| {re.escape(name)}: ", line)][-40:]
