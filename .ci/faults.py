"""What .ci/faults does with JSON: the client's pod, and what its report says of each fault.

    faults.py pod NAME NODE FLAG…                 a Deployment on stdin; a pod on stdout
    faults.py judge OVERLAY MOMENTS LOG ROWS      prints checks, adds the overlay's row to ROWS
    faults.py table ROWS                          all rows, as the scorecard has them
"""

import json
import re
import sys

# The channel is ours. In the others an Envoy makes the attempts; what they lose is told and not
# judged.
OURS = {"round-robin", "lookaside", "kubernetes"}
# Nothing that answers calls is touched: no call may fail.
HARMLESS = ["api-server", "dns", "kubelet"]
# A backend goes with what it has. From then on, in seconds: a connection that is reset is seen at
# once, and one on which nothing comes back after TCP_USER_TIMEOUT, 20 s; the rest is a call's own
# 5 s and the machine's.
LAST_FAILURE_S_MAX = {"node-dies": 3.0, "node-cut-off": 27.0}
FAULTS = HARMLESS + list(LAST_FAILURE_S_MAX)
CONTAINER = "greeter-client"
BACKENDS = 3


def pod(name, node, flags):
    """The overlay's own client with other arguments, and labels that no Deployment selects."""
    spec = json.load(sys.stdin)["spec"]["template"]["spec"]
    spec.update(restartPolicy="Never", nodeSelector={"kubernetes.io/hostname": node})
    container = next(one for one in spec["containers"] if one["name"] == CONTAINER)
    always = ["--output", "json", "--quiet", "--events", "--warmup", "60s"]
    container["args"] = always + flags
    metadata = {"name": name, "labels": {"app": name}}
    print(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))


def report_of(log):
    """The kubelet cuts a long line into pieces, with what came to stderr meanwhile between them."""
    text = open(log, encoding="utf-8").read()
    begin = re.search(r'^\{"target":', text, re.MULTILINE)
    if not begin:
        raise SystemExit(f"{log}: expected the client's report, found none")
    text = re.sub(r'\{"unix_s":[0-9.]+,"event":"[^{}\n]*\}\n', "", text[begin.start() :])
    return json.JSONDecoder().raw_decode(text)[0]


def moments_of(path):
    moments = {}
    for line in open(path, encoding="utf-8"):
        fault, event, at = line.split()
        moments.setdefault(fault, {})[event] = float(at)
    return moments


def windows(moments, end):
    """Each fault's time ends where the next one begins."""
    begins = [moments[fault]["begun"] for fault in FAULTS] + [end]
    return dict(zip(FAULTS, zip(begins, begins[1:])))


def mark(name, holds, detail):
    print(f"  {'√' if holds else '×'} {name}: {detail}")
    return holds


def learned(fault, moments, report, slots):
    """Whether clients know afterwards what there is: a pod that is new, or all that came back."""
    at = moments[fault]
    if "scaled" not in at:
        late = [slot for slot in slots if at["learned"] - 4 <= slot["unix_s"] < at["learned"]]
        last = {ip for slot in late for ip in slot["by_backend"]}
        return len(last) >= BACKENDS, f"{len(last)} backends have calls afterwards"
    first = [one["first_unix_s"] for one in report["by_backend"].values()]
    new = [first for first in first if at["scaled"] <= first <= at["learned"]]
    if not new:
        return False, "the pod that was made afterwards had no calls"
    late_s = max(0.0, new[0] - at["ready"])
    return True, f"a pod made afterwards has calls {late_s:.1f} s after it is ready"


def judge(overlay, moments_path, log, rows):
    report, moments = report_of(log), moments_of(moments_path)
    end = report["started_unix_s"] + report["wall_s"] + 10
    holds, row = True, {}
    for fault, (begun, over) in windows(moments, end).items():
        slots = [slot for slot in report["slots"] if begun <= slot["unix_s"] < over]
        failures = [one for one in report["failures"] if begun <= one["start_unix_s"] < over]
        calls = sum(sum(slot["by_backend"].values()) + slot["fail"] for slot in slots)
        last_s = max((one["end_unix_s"] - begun for one in failures), default=0.0)
        knows, how = learned(fault, moments, report, slots)
        text = f"{len(failures)} of {calls} calls failed"
        if failures:
            codes = sorted({one["code"] for one in failures})
            text += f", the last after {last_s:.1f} s ({', '.join(codes)})"
        if overlay in OURS:
            good = last_s <= LAST_FAILURE_S_MAX.get(fault, 0.0)
            holds &= mark(f"{fault}: {overlay}", good and knows and calls > 0, f"{text}; {how}")
        else:
            holds &= mark(f"{fault}: {overlay} knows what there is", knows, f"{text}; {how}")
        row[fault] = f"{len(failures)} of {calls}" + (f", {last_s:.1f} s" if failures else "")
    outside = report["failures_omitted"] + report["shed"]
    counted = f"{overlay}: every call is counted"
    holds &= mark(counted, outside == 0, f"{outside} shed or not listed")
    with open(rows, "a", encoding="utf-8") as file:
        file.write(json.dumps([overlay, row]) + "\n")
    return holds


def table(rows):
    rows = [json.loads(line) for line in open(rows, encoding="utf-8")]
    print("failed of calls, and how long after the fault the last one failed")
    cells = [["", *FAULTS]]
    cells += [[overlay, *(row[fault] for fault in FAULTS)] for overlay, row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "pod":
        pod(arguments[0], arguments[1], arguments[2:])
    elif command == "judge":
        sys.exit(0 if judge(*arguments) else 1)
    else:
        table(*arguments)
