"""A double of Nomad's HTTP API, as far as the registrar uses it, for machines without Nomad.

`test_double` holds it to what a real agent answered. It runs nothing: a slot is a record that tests end as they like.
"""

from __future__ import annotations

import itertools
import json
import queue
import re
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

TERMINAL = ("complete", "failed", "lost")
HEART_BEAT_S = 2.0


class NomadDouble:
    """One cluster with one node, which has all images but those in `images_gone`."""

    def __init__(self) -> None:
        self.images_gone: set[str] = {"sha256:" + "0" * 64}
        self.images_hanging: set[str] = set()
        """Images whose pull does not end."""
        self.memory_mib = 8192
        self.start_takes_s = 0.1
        self.short_lived = False
        self.broken = False
        """True: every call is answered with 500."""
        self.refused: dict[str, int] = {}
        """Calls that are answered with 500, such as `nodes`, and how often each was."""
        self.most_pending = 0
        """The most allocations that were pending at the same time."""
        self.jobs: dict[str, dict[str, Any]] = {}
        self.allocations: dict[str, dict[str, Any]] = {}
        self.evaluations: dict[str, dict[str, Any]] = {}
        self.node_id = str(uuid.uuid4())
        self.node = {
            "ID": self.node_id,
            "Name": "double",
            "NodePool": "default",
            "Status": "ready",
            "SchedulingEligibility": "eligible",
            "Drain": False,
        }
        self._index = itertools.count(10)
        self._streams: set[queue.Queue[bytes | None]] = set()
        self._lock = threading.RLock()
        self._timers: list[threading.Timer] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        with self._lock:
            for timer in self._timers:
                timer.cancel()
            for stream in self._streams:
                stream.put(None)
        self._server.shutdown()
        self._server.server_close()

    # -- what tests do

    def live(self, prefix: str) -> list[str]:
        """The slots of these jobs that have not ended."""
        with self._lock:
            return sorted(
                each["TaskGroup"]
                for each in self.allocations.values()
                if each["JobID"].startswith(prefix) and each["ClientStatus"] not in TERMINAL
            )

    def end(self, slot_id: str, exit_code: int, *, out_of_memory: bool = False) -> None:
        """The slot's container ends by itself."""
        details = {"exit_code": str(exit_code), "oom_killed": str(out_of_memory).lower()}
        with self._lock:
            for each in list(self.allocations.values()):
                if each["TaskGroup"] == slot_id and each["ClientStatus"] not in TERMINAL:
                    self._ended(each, "complete" if exit_code == 0 else "failed", "Terminated", details)

    def change_node(self, event: str, **fields: Any) -> None:
        """The node's record changes, as an operator or the servers change it."""
        with self._lock:
            self.node |= fields
            self._publish("Node", event, self.node)

    def lose_node(self) -> None:
        """The servers lose sight of the node: what they know to run there is unknown, all else is lost."""
        with self._lock:
            for each in self.allocations.values():
                if each["ClientStatus"] == "running":
                    each["ClientStatus"] = "unknown"
                elif each["ClientStatus"] == "pending":
                    each |= {"ClientStatus": "lost", "DesiredStatus": "stop"}
                else:
                    continue
                self._publish("Allocation", "PlanResult", each)
        self.change_node("NodeHeartbeat", Status="disconnected")

    def find_node(self) -> None:
        """The node reports again: it has ended what the servers gave up, and the rest still runs.

        What was lost is placed again, unless its job was deregistered: so Nomad does in spite of all settings.
        """
        self.change_node("NodeRegistration", Status="ready")
        with self._lock:
            for each in list(self.allocations.values()):
                job = self.jobs.get(each["JobID"])
                if each["ClientStatus"] == "lost" and job is not None and not job["Stop"]:
                    self._place(job, next(g for g in job["TaskGroups"] if g["Name"] == each["TaskGroup"]))
                if each["ClientStatus"] == "unknown" and each["DesiredStatus"] == "run":
                    each["ClientStatus"] = "running"
                    self._publish("Allocation", "AllocationUpdated", each)
                elif each["ClientStatus"] in ("unknown", "lost"):
                    each["ClientStatus"] = "running"
                    self._ended(each, "complete", "Killed", {})

    # -- its insides; `_lock` is held

    def _publish(self, topic: str, kind: str, record: dict[str, Any]) -> None:
        record["ModifyIndex"] = next(self._index)
        event = {
            "Topic": topic,
            "Type": kind,
            "Key": record["ID"],
            "Index": record["ModifyIndex"],
            "Payload": {topic: record},
        }
        line = json.dumps({"Index": record["ModifyIndex"], "Events": [event]}).encode() + b"\n"
        for stream in self._streams:
            stream.put(line)

    def _after(self, seconds: float, action: Any, *arguments: Any) -> None:
        def act() -> None:
            with self._lock:
                action(*arguments)

        timer = threading.Timer(seconds, act)
        timer.daemon = True
        self._timers = [each for each in self._timers if each.is_alive()] + [timer]
        timer.start()

    def _evaluate(self, job: dict[str, Any]) -> None:
        unplaced: dict[str, Any] = {}
        wanted = [] if job["Stop"] else job["TaskGroups"]
        for group in wanted:
            filtered = {f"${{meta.gc_cpu_{feature}}} = 1": 1 for feature in job["_features"]}
            memory_mib = group["Tasks"][0]["Resources"]["MemoryMB"]
            if filtered:
                unplaced[group["Name"]] = _metric(filtered=1, constraint=filtered)
            elif memory_mib > self.memory_mib:
                unplaced[group["Name"]] = _metric(exhausted=1, dimension={"memory": 1})
        evaluation = {
            "ID": str(uuid.uuid4()),
            "JobID": job["ID"],
            "Namespace": "default",
            "Status": "complete",
            "TriggeredBy": "job-register",
            "ModifyIndex": 0,
            **({"FailedTGAllocs": unplaced} if unplaced else {}),
        }
        self.evaluations[evaluation["ID"]] = evaluation
        self._publish("Evaluation", "EvaluationUpdated", evaluation)
        for group in wanted:
            if group["Name"] not in unplaced:
                self._place(job, group)

    def _place(self, job: dict[str, Any], group: dict[str, Any]) -> None:
        index = next(self._index)
        allocation = {
            "ID": str(uuid.uuid4()),
            "JobID": job["ID"],
            "Name": f"{job['ID']}.{group['Name']}[0]",
            "Namespace": "default",
            "TaskGroup": group["Name"],
            "NodeID": self.node_id,
            "NodeName": "double",
            "ClientStatus": "pending",
            "ClientDescription": "",
            "DesiredStatus": "run",
            "CreateIndex": index,
            "ModifyIndex": index,
            "TaskStates": {"guest": _state("pending", "Received", {})},
        }
        self.allocations[allocation["ID"]] = allocation
        pending = sum(each["ClientStatus"] == "pending" for each in self.allocations.values())
        self.most_pending = max(self.most_pending, pending)
        self._publish("Allocation", "AllocationUpdated", allocation)
        run = group["Tasks"][0]["Config"]["image"]
        if run in self.images_gone:
            error = (
                f"Failed to pull `{run}`: Error response from daemon: pull access denied for sha256, repository does "
                "not exist or may require 'docker login'"
            )
            self._after(
                self.start_takes_s,
                self._ended,
                allocation,
                "failed",
                "Driver Failure",
                {"driver_error": error},
            )
        elif run in self.images_hanging:
            pass
        elif job["Type"] == "sysbatch":
            self._after(
                self.start_takes_s, self._ended, allocation, "complete", "Terminated", {"exit_code": "0"}
            )
        elif self.short_lived:
            self._after(
                self.start_takes_s, self._ended, allocation, "failed", "Terminated", {"exit_code": "1"}
            )
        else:
            self._after(self.start_takes_s, self._runs, allocation)

    def _runs(self, allocation: dict[str, Any]) -> None:
        if allocation["ClientStatus"] == "pending":
            allocation["ClientStatus"] = "running"
            allocation["TaskStates"] = {"guest": _state("running", "Started", {})}
            self._publish("Allocation", "AllocationUpdated", allocation)

    def _ended(self, allocation: dict[str, Any], status: str, event: str, details: dict[str, str]) -> None:
        if allocation["ClientStatus"] in TERMINAL:
            return
        allocation["ClientStatus"] = status
        allocation["TaskStates"] = {"guest": _state("dead", event, details)}
        self._publish("Allocation", "AllocationUpdated", allocation)

    # -- the API; each returns (status, body)

    def parse(self, body: dict[str, Any]) -> tuple[int, Any]:
        """What Nomad makes of the template, as far as this double reads it: HCL is not parsed."""
        if "Variables" not in body:
            return 400, "error parsing hcl: Unclosed configuration block"
        values = {
            name: json.loads(value)
            for name, value in re.findall(r"^(\w+) = (.*)$", body["Variables"], re.MULTILINE)
        }
        if "slots" not in values:
            return 200, _pull(values)
        environment = values["env"]
        groups = [
            {
                "Name": slot["id"],
                "Count": 1,
                "Tasks": [
                    {
                        "Name": "guest",
                        "Driver": "docker",
                        "Config": {"image": values["run"]},
                        "Env": {**environment, "GENERAL_COMPUTE_SLOT_TOKEN": slot["token"]},
                        "Resources": {"CPU": values["cpu"], "MemoryMB": values["memory_mib"]},
                    }
                ],
            }
            for slot in values["slots"]
        ]
        meta = {
            "gc.set": values["set_name"],
            "gc.installation": values["installation"],
            "gc.account": values["account"],
        }
        job = {
            "ID": values["job_id"],
            "Name": f"set {values['set_name']}: {values['account']} / {values['image']}",
            "Type": "batch",
            "Meta": meta,
            "TaskGroups": groups,
            "_features": values["cpu_features"],
        }
        return 200, job

    def register(self, body: dict[str, Any]) -> tuple[int, Any]:
        job = body["Job"]
        with self._lock:
            if job["ID"] in self.jobs and body.get("EnforceIndex"):
                return 500, "Enforcing job modify index 0: job already exists"
            self.jobs[job["ID"]] = {**job, "Stop": False}
            self._after(0.0, self._evaluate, self.jobs[job["ID"]])
            return 200, {"EvalID": str(uuid.uuid4()), "JobModifyIndex": next(self._index), "Warnings": ""}

    def deregister(self, job_id: str, purge: bool) -> tuple[int, Any]:
        with self._lock:
            job = self.jobs.get(job_id)
            if job is not None:
                job["Stop"] = True
                for each in list(self.allocations.values()):
                    if each["JobID"] == job_id and each["ClientStatus"] not in TERMINAL:
                        each["DesiredStatus"] = "stop"
                        if self.node["Status"] == "ready":
                            self._after(0.02, self._ended, each, "complete", "Killed", {})
                if purge:
                    del self.jobs[job_id]
            return 200, {"EvalID": str(uuid.uuid4()), "JobModifyIndex": next(self._index)}

    def signal(self, allocation_id: str) -> tuple[int, Any]:
        with self._lock:
            allocation = self.allocations.get(allocation_id)
            if allocation is None:
                return 404, f"alloc not found: {allocation_id}"
            if allocation["ClientStatus"] != "running":
                return 500, "Task not running"
            self._ended(allocation, "failed", "Terminated", {"exit_code": "137", "oom_killed": "false"})
            return 200, {}

    def listed(self, what: str, query: dict[str, str]) -> tuple[int, Any]:
        with self._lock:
            if what == "nodes":
                return 200, [self.node]
            if what == "jobs":
                prefix = query.get("prefix", "")
                return 200, [_stub(job) for job in self.jobs.values() if job["ID"].startswith(prefix)]
            records = self.allocations if what == "allocations" else self.evaluations
            wanted = re.compile(re.findall(r'"(.*)"', query.get("filter", '""'))[0])
            return 200, [each for each in records.values() if wanted.search(each["JobID"])]

    def _handler(double) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
                path = unquote(parts.path).removeprefix("/v1/").split("/")
                length = int(self.headers.get("Content-Length") or 0)
                body = msgspec.json.decode(self.rfile.read(length)) if length else {}
                if double.broken:
                    self.reply(500, "a server of the double is broken")
                    return
                if path[0] in double.refused:
                    double.refused[path[0]] += 1
                    self.reply(500, "a server of the double refuses this call")
                    return
                match self.command, path:
                    case "POST", ["jobs", "parse"]:
                        self.reply(*double.parse(body))
                    case "POST", ["jobs"]:
                        self.reply(*double.register(body))
                    case "DELETE", ["job", job_id]:
                        self.reply(*double.deregister(job_id, query.get("purge") == "true"))
                    case "POST", ["client", "allocation", allocation_id, "signal"]:
                        self.reply(*double.signal(allocation_id))
                    case "GET", ["jobs" | "allocations" | "evaluations" | "nodes" as what]:
                        self.reply(*double.listed(what, query))
                    case "GET", ["event", "stream"]:
                        self.stream()
                    case _:
                        self.reply(404, "no such call")

            do_GET = do_POST = do_DELETE = answer

            def reply(self, status: int, body: Any) -> None:
                content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("X-Nomad-Index", str(next(double._index)))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def stream(self) -> None:
                lines: queue.Queue[bytes | None] = queue.Queue()
                with double._lock:
                    double._streams.add(lines)
                    # From the index on: here, all that there is, as a real buffer also repeats what was listed.
                    for each in double.allocations.values():
                        event = {"Topic": "Allocation", "Payload": {"Allocation": each}}
                        lines.put(json.dumps({"Index": 1, "Events": [event]}).encode() + b"\n")
                try:
                    self.send_response(200)
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    while True:
                        try:
                            line = lines.get(timeout=HEART_BEAT_S)
                        except queue.Empty:
                            line = b"{}\n"
                        if line is None:
                            return
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                        self.wfile.flush()
                except OSError:
                    pass
                finally:
                    self.close_connection = True
                    with double._lock:
                        double._streams.discard(lines)

            def log_message(self, *_: object) -> None: ...

        return Handler


def _metric(
    *,
    filtered: int = 0,
    exhausted: int = 0,
    constraint: dict[str, int] | None = None,
    dimension: dict[str, int] | None = None,
) -> dict[str, Any]:
    return {
        "NodesEvaluated": 1,
        "NodesFiltered": filtered,
        "NodesExhausted": exhausted,
        "ConstraintFiltered": constraint,
        "DimensionExhausted": dimension,
        "QuotaExhausted": None,
    }


def _state(state: str, event: str, details: dict[str, str]) -> dict[str, Any]:
    events = [
        {"Type": "Received", "DisplayMessage": "Task received by client", "Details": {}},
        {"Type": event, "DisplayMessage": event, "Details": details},
    ]
    return {"State": state, "Restarts": 0, "Events": events}


def _pull(values: dict[str, Any]) -> dict[str, Any]:
    """The job of jobspecs/pull.nomad.hcl."""
    task = {"Name": "guest", "Config": {"image": values["run"]}, "Resources": {"MemoryMB": 32}}
    return {
        "ID": values["job_id"],
        "Name": f"set {values['set_name']}: pull {values['image']}",
        "Type": "sysbatch",
        "Meta": None,
        "TaskGroups": [{"Name": "pull", "Tasks": [task]}],
        "_features": [],
    }


def _stub(job: dict[str, Any]) -> dict[str, Any]:
    groups = {group["Name"]: {"Running": 1} for group in job["TaskGroups"]}
    return {
        "ID": job["ID"],
        "Name": job["Name"],
        "Status": "running",
        "Stop": job["Stop"],
        "Meta": job["Meta"],
        "JobSummary": {"Summary": groups},
    }
