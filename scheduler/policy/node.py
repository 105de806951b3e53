"""The machines of a cell: what each has, how much of it is in use, and which of them gets a new slot. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from scheduler.errors import BadRequest, NoNode
from scheduler.policy.spare_levels import Levels
from scheduler.policy.tenancy import Use
from scheduler.task import Priority

if TYPE_CHECKING:
    from scheduler.policy.tenancy import Parties, Tenure
    from scheduler.pool import PoolKey
    from scheduler.task import Resources

NODES_COMPARED: Final = 128
"""How many nodes with a free place are compared for one slot; those whose last slot is oldest come first."""
IMAGES_MOST: Final = 1_000
"""Number of images that are remembered for each node, the last ones seen. A forgotten image only makes the choice of a
node less good."""
FEATURES_CHARS: Final = 400
"""Length of the list of CPU flags in a message, which may be read on a terminal; machines have some 150."""
SHAPES_MOST: Final = 10_000
"""How many shapes of tasks are remembered, each with how many could run at the same time."""
FEATURES_MOST: Final = 1_000
"""How many combinations of CPU features are remembered with the number of nodes that have them."""
LOST_MOST: Final = 1_000
"""How many lost nodes operators are shown; a cluster whose nodes never come back under their names must not grow it."""
OWN_NODE: Final = "local"
"""The node's name where the set's own machine is the only one."""


class Health(StrEnum):
    """The state of a node."""

    READY = "ready"
    DRAINING = "draining"
    """Running tasks finish; no new ones start."""
    LOST = "lost"
    """It does not answer: what ran there counts as lost."""


class Standing(StrEnum):
    """How a node stands for new slots, as the cluster that starts them says. Its executor says the rest."""

    OPEN = "open"
    CLOSED = "closed"
    """No new slot starts; those that are there serve on."""
    DRAINED = "drained"
    """An operator empties the node: nothing new begins there."""


class NodeFacts(msgspec.Struct, frozen=True):
    """A machine and its capacity: `cpu_percent` in hundredths of a core. `build`: that of its executor."""

    id: str
    cpu_percent: int
    memory_mib: int
    max_slots: int
    cpu_features: frozenset[str] = frozenset()
    images: tuple[str, ...] = ()
    build: str = ""


class Node:
    """A machine as the cell counts it. Running tasks use its cores and memory; every slot uses one of its places.

    It knows no slot and no pool: the books hold which slots it has.
    """

    __slots__ = (
        "beside_mib",
        "facts",
        "free_cpu",
        "free_memory",
        "health",
        "images",
        "is_ready",
        "kept_for",
        "max_slots",
        "slots",
        "spare_cpu",
        "spare_levels",
        "standing",
        "starting_cpu",
        "takes_slots",
        "tenure",
    )

    def __init__(self, facts: NodeFacts, tenure: Tenure | None = None) -> None:
        self.facts = facts
        self.health = Health.READY
        # It takes tasks: it neither drains nor is being emptied for other accounts.
        self.is_ready = True
        # New slots may start: its cluster lets them, too.
        self.takes_slots = True
        self.standing = Standing.OPEN
        # Whose node it is; None where all accounts share all nodes.
        self.tenure = tenure
        self.max_slots = facts.max_slots
        self.free_cpu = facts.cpu_percent
        self.free_memory = facts.memory_mib
        # The pools that come first here, as their slots found no room (`reclaim`); empty where all are alike.
        self.kept_for: set[PoolKey] = set()
        # The memory, in MiB, that slots of other pools may take nevertheless: beside all that it is kept for.
        self.beside_mib = 0
        # Hundredths of a core that its starting slots will use.
        self.starting_cpu = 0
        # Hundredths of a core that spare tasks hold which have not been told to give way, and what they may hold;
        # None: all that is free.
        self.spare_cpu = 0
        self.spare_levels: Levels | None = None
        # How many slots it has.
        self.slots = 0
        self.images: dict[str, None] = dict.fromkeys(facts.images)

    @property
    def is_up(self) -> bool:
        """True if tasks may begin here, whosever: it is in reach, and nobody drains it."""
        return self.health is Health.READY and self.standing is not Standing.DRAINED

    def suits(self, key: PoolKey) -> bool:
        """Return True if the node can start slots of the pool, once it has room."""
        facts, wanted = self.facts, key.resources
        return (
            self.takes_slots
            and (not self.kept_for or key in self.kept_for or wanted.memory_mib <= self.beside_mib)
            and facts.cpu_percent >= wanted.cpu_percent
            and facts.memory_mib >= wanted.memory_mib
            and (not key.cpu_features or facts.cpu_features.issuperset(key.cpu_features))
            and (self.tenure is None or self.tenure.admits(key.account))
        )

    def could_hold(self, key: PoolKey) -> int:
        """How many tasks of the pool could run here at the same time, were it empty."""
        return _could_hold(self.facts, key)

    def spare_gives_way(self, cpu_percent: int, now: float) -> None:
        """A spare task was told to give `cpu_percent` to normal ones."""
        if self.spare_levels is None:
            self.spare_levels = Levels(self.facts.cpu_percent)
        self.spare_levels.lost(self.spare_cpu, cpu_percent, now)
        self.spare_cpu -= cpu_percent

    def spare_ended(self, cpu_percent: int) -> None:
        """A spare task that held `cpu_percent` has ended by itself."""
        if self.spare_levels is not None:
            self.spare_levels.kept(self.spare_cpu)
        self.spare_cpu -= cpu_percent

    def has_image(self, digest: str) -> None:
        """The node holds the image."""
        if digest in self.images:
            return
        if len(self.images) >= IMAGES_MOST:
            del self.images[next(iter(self.images))]
        self.images[digest] = None


class Nodes:
    """The cell's nodes. Totals are over those that are ready."""

    def __init__(self, nodes: Iterable[NodeFacts], parties: Parties | None = None) -> None:
        self._nodes: dict[str, Node] = {}
        # The nodes that were lost and have not come back, for operators; the oldest first.
        self.lost: dict[str, NodeFacts] = {}
        self._parties = parties
        # By id, what its cluster says of a node that does not stand open, known here or not.
        self._standing: dict[str, tuple[Standing, str]] = {}
        # Nodes that take slots with a place for another slot; those that had one started last come last.
        self.open: dict[Node, None] = {}
        # How many ready nodes have these CPU features; thousands of tasks may ask at the same time.
        self._having: dict[tuple[str, ...], int] = {}
        # The node, where there is just one, and it takes slots.
        self.only: Node | None = None
        self.cpu_percent = 0
        self.memory_mib = 0
        self.max_slots = 0
        # By what tasks ask for: how many could run at the same time. Pools are many, and such shapes are few.
        self._at_once: dict[tuple[Resources, tuple[str, ...]], int] = {}
        for facts in nodes:
            self._nodes[facts.id] = self._new(facts)
        self._count()

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, node_id: str) -> Node | None:
        """The node, whatever its health; None when it is not known."""
        return self._nodes.get(node_id)

    def add(self, facts: NodeFacts) -> Node:
        """A node is ready: a new one, or one that was away and has no slots."""
        node = self._nodes[facts.id] = self._new(facts)
        self.lost.pop(facts.id, None)
        self._settle(node)
        self._count()
        return node

    def _new(self, facts: NodeFacts) -> Node:
        return Node(facts, None if self._parties is None else self._parties.tenure(facts.id))

    def set_health(self, node: Node, health: Health) -> None:
        """Change the node's health; a lost node is forgotten."""
        node.health = health
        if node.tenure is not None and health is not Health.READY:
            node.tenure.withdraw()
        self._settle(node)
        if health is Health.LOST:
            self._nodes.pop(node.facts.id, None)
            if len(self.lost) >= LOST_MOST:
                del self.lost[next(iter(self.lost))]
            self.lost[node.facts.id] = node.facts
        self._count()

    def close(self, node: Node) -> None:
        """The node takes no tasks, as it is being emptied for another account."""
        node.is_ready = node.takes_slots = False
        self.open.pop(node, None)

    def reopen(self, node: Node) -> None:
        """The node takes tasks again, as far as its health allows."""
        node.is_ready = node.is_up
        node.takes_slots = node.is_up and node.standing is Standing.OPEN
        if node.takes_slots and node.slots < node.max_slots:
            self.open[node] = None

    def stand(self, node_id: str, standing: Standing, reason: str) -> Node | None:
        """The cluster says how a node stands, and why; returns the node, where it is known here."""
        if standing is Standing.OPEN:
            self._standing.pop(node_id, None)
        else:
            self._standing[node_id] = standing, reason
        node = self._nodes.get(node_id)
        if node is None:
            return None
        if node.tenure is not None and standing is not Standing.OPEN:
            node.tenure.withdraw()
        self._settle(node)
        self._count()
        return node

    def _settle(self, node: Node) -> None:
        node.standing, _ = self._standing.get(node.facts.id, (Standing.OPEN, ""))
        emptied = node.tenure is not None and node.tenure.use is Use.EMPTIED
        node.is_ready = node.is_up and not emptied
        node.takes_slots = node.is_ready and node.standing is Standing.OPEN

    def refusals(self) -> str:
        """A clause that says where no new slot starts, and why; "" where the cluster closes no node."""
        reasons = [reason for node_id, (_, reason) in self._standing.items() if node_id in self._nodes]
        if not reasons:
            return ""
        where = "" if len(self) == 1 else f" on {len(reasons)} of {len(self)} nodes"
        return f"no new slot starts{where}: {reasons[0]}"

    def slot_added(self, node: Node) -> None:
        """A slot of the node was started: others come before it, if it has a place left."""
        node.slots += 1
        del self.open[node]
        if node.slots < node.max_slots:
            self.open[node] = None

    def slot_removed(self, node: Node) -> None:
        """A slot of the node is gone, so that it has a place."""
        node.slots -= 1
        if node.takes_slots:
            self.open[node] = None

    def at_once(self, key: PoolKey) -> int:
        """How many tasks of the pool could run at the same time in an empty cell; 0 where no node suits it."""
        shape = (key.resources, key.cpu_features)
        known = self._at_once.get(shape)
        if known is None:
            if len(self._at_once) >= SHAPES_MOST:
                self._at_once.clear()
            known = self._at_once[shape] = sum(node.could_hold(key) for node in self if node.is_up)
        return known

    def place(self, key: PoolKey, crowds: Callable[[Node], bool] | None = None) -> Node | None:
        """The node on which a pool's next slot is started: one that holds the image, then the one with most room.

        Where accounts have nodes of their own, one that the account has already and that has room comes before all
        others. `crowds`: asked about a node without room for a task whether the pool has slots enough there.
        """
        best: Node | None = None
        best_rank: tuple[bool, bool, bool, int, int] = (False, False, False, 0, 0)
        digest, cpu_percent = key.image_digest, key.resources.cpu_percent
        gets_spare = key.priority is Priority.NORMAL
        if self.only is not None and self._parties is None:
            return self.only if self.open and self.only.suits(key) else None
        for number, node in enumerate(self.open):
            # Nodes that an account has already may come last, and come before all others.
            if number >= NODES_COMPARED and best is not None and self._parties is None:
                break
            if not node.suits(key):
                continue
            room = node.free_cpu - node.starting_cpu
            if gets_spare:
                # What spare tasks hold is a normal task's whenever it wants it.
                room += node.spare_cpu
            roomy = room >= cpu_percent
            if not roomy and crowds is not None and crowds(node):
                continue
            own = roomy and node.tenure is not None and node.tenure.holder() is not None
            rank = (key in node.kept_for, own, roomy and digest in node.images, room, -node.slots)
            if best is None or rank > best_rank:
                best, best_rank = node, rank
        return best

    def scarcity(self, key: PoolKey) -> str:
        """A clause that says how few nodes have the CPU features of the pool; "" where every node has them."""
        wanted = key.cpu_features
        if not wanted:
            return ""
        having = self._having.get(wanted)
        if having is None:
            if len(self._having) >= FEATURES_MOST:
                self._having.clear()
            having = sum(node.is_up and node.facts.cpu_features.issuperset(wanted) for node in self)
            self._having[wanted] = having
        if having == len(self):
            return ""
        return f"it needs {', '.join(wanted)}, which {having or 'none'} of {len(self)} nodes can give now"

    def check(self, key: PoolKey) -> None:
        """Raise `BadRequest` for a pool that no node can ever run: it names what is missing and what is available.

        Tasks that a lost node could run wait for it. Raises `NoNode` where all nodes are lost, or none is known.
        """
        if any(node.could_hold(key) for node in self):
            return
        if not self._nodes:
            raise NoNode
        if any(_could_hold(facts, key) for facts in self.lost.values()):
            return
        facts = [node.facts for node in self]
        cpu_percent = max((each.cpu_percent for each in facts), default=0)
        memory_mib = max((each.memory_mib for each in facts), default=0)
        if key.resources.cpu_percent > cpu_percent:
            raise BadRequest(
                f"cpu: at most {cpu_percent / 100:g}, which is all that this set has", field="cpu"
            )
        if key.resources.memory_mib > memory_mib:
            raise BadRequest(
                f"memory_mib: this set runs tasks of {memory_mib} MiB at most", field="memory_mib"
            )
        raise BadRequest(
            _no_features(key.cpu_features, [each.cpu_features for each in facts]), field="cpu_feature"
        )

    def _count(self) -> None:
        self._having.clear()
        self._at_once.clear()
        self.open = {node: None for node in self if node.takes_slots and node.slots < node.max_slots}
        self.only = next((node for node in self if node.takes_slots), None) if len(self) == 1 else None
        ready = [node.facts for node in self if node.is_up]
        self.cpu_percent = sum(facts.cpu_percent for facts in ready)
        self.memory_mib = sum(facts.memory_mib for facts in ready)
        self.max_slots = sum(facts.max_slots for facts in ready)


def _could_hold(facts: NodeFacts, key: PoolKey) -> int:
    wanted = key.resources
    if key.cpu_features and not facts.cpu_features.issuperset(key.cpu_features):
        return 0
    return min(facts.cpu_percent // wanted.cpu_percent, facts.memory_mib // wanted.memory_mib)


def _no_features(wanted: Collection[str], there: Collection[frozenset[str]]) -> str:
    known = frozenset[str]().union(*there)
    missing = sorted(set(wanted) - known)
    if missing:
        there_is = ", ".join(sorted(known)) or "none that are known"
        if len(there_is) > FEATURES_CHARS:
            there_is = there_is[:FEATURES_CHARS].rpartition(",")[0] + ", …"
        return f"cpu_feature: no node of this set has {', '.join(missing)}; there is: {there_is}"
    return (
        f"cpu_feature: no single node of this set has all of {', '.join(wanted)}"
        " and the cpu and memory_mib that the task asks for"
    )
