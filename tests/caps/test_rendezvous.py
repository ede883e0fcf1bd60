"""The core of channels against a model: whatever is interleaved, nothing is lost, doubled, or left waiting.

WW_EXAMPLES says how many interleavings are tried (1,000; scripts/soak: 100,000).
"""

import bisect
import os
import random
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ww.caps.rendezvous import Case, Operation, Receive, Rendezvous, Send, begin

EXAMPLES = int(os.environ.get("WW_EXAMPLES", "1000"))
CHANNELS = 3
PARTICIPANTS = 4


class Model:
    """One channel as the table of docs/semantics.md has it: what was sent and not yet received, in order."""

    def __init__(self, channel: Rendezvous, capacity: int) -> None:
        self.channel = channel
        self.capacity = capacity
        self.sent: list[tuple[int, Operation | None]] = []
        """Values, each with the send that waits, or None when it is buffered: its sender was told that it is sent."""
        self.returned: list[int] = []
        """Of the first of these, received by somebody who was gone: which one it was of all that were received."""
        self.handed = 0
        self.receives: list[Operation] = []
        self.is_closed = False

    @property
    def buffered(self) -> int:
        return sum(operation is None for _, operation in self.sent) - len(self.returned)


class Channels(RuleBasedStateMachine):
    """Participants that send, receive, select, give up, break off and close, in any order."""

    @initialize(capacities=st.lists(st.integers(0, 3), min_size=CHANNELS, max_size=CHANNELS), seed=st.integers(0, 99))
    def start(self, capacities: list[int], seed: int) -> None:
        self.models = [Model(Rendezvous(capacity), capacity) for capacity in capacities]
        self.rng = random.Random(seed)
        self.next_value = 0
        self.owners: dict[Operation, int] = {}
        self.gone: set[Operation] = set()
        self.told_sent: set[int] = set()
        self.told_closed: set[int] = set()
        self.withdrawn: set[int] = set()
        self.received: Counter[int] = Counter()
        self.just_received: list[tuple[Operation, Model, int]] = []

    # What participants do.

    @rule(owner=st.integers(0, PARTICIPANTS - 1), where=st.integers(0, CHANNELS - 1))
    def send(self, owner: int, where: int) -> None:
        self.begin(owner, [self.send_case(where)])

    @rule(owner=st.integers(0, PARTICIPANTS - 1), where=st.integers(0, CHANNELS - 1))
    def receive(self, owner: int, where: int) -> None:
        self.begin(owner, [Receive(self.models[where].channel)])

    @rule(
        owner=st.integers(0, PARTICIPANTS - 1),
        wishes=st.lists(st.tuples(st.booleans(), st.integers(0, CHANNELS - 1)), min_size=1, max_size=4),
        may_wait=st.booleans(),
    )
    def select(self, owner: int, wishes: list[tuple[bool, int]], may_wait: bool) -> None:
        cases: list[Case] = [
            self.send_case(where) if sends else Receive(self.models[where].channel) for sends, where in wishes
        ]
        self.begin(owner, cases, may_wait=may_wait)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.withdraw(data.draw(st.sampled_from(self.waiting())))

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def be_cancelled_and_not_have_run_yet(self, data: st.DataObject) -> None:
        operation = data.draw(st.sampled_from(self.waiting()))
        self.gone.add(operation)
        self.forget(operation)

    @precondition(lambda self: self.waiting())
    @rule(owner=st.integers(0, PARTICIPANTS - 1))
    def disconnect(self, owner: int) -> None:
        for operation in self.waiting():
            if self.owners[operation] == owner:
                self.withdraw(operation)

    @rule(where=st.integers(0, CHANNELS - 1))
    def close(self, where: int) -> None:
        model = self.models[where]
        model.is_closed = True
        self.note(model.channel.close())

    @rule(where=st.integers(0, CHANNELS - 1), data=st.data())
    def take(self, where: int, data: st.DataObject) -> None:
        model = self.models[where]
        waiting = list(model.channel.waiting())
        assert [value for _, value in waiting] == [value for value, operation in model.sent if operation is not None]
        if waiting:
            key, wanted = data.draw(st.sampled_from(waiting))
            value, ended = model.channel.take(key)
            assert value == wanted
            self.note(ended)
            self.hand_over(model, value, at_front=False)

    @precondition(lambda self: self.just_received)
    @rule(data=st.data())
    def be_cancelled_just_after_receiving(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.just_received))
        self.just_received.remove(entry)
        operation, model, handed = entry
        self.received[operation.value] -= 1
        place = bisect.bisect(model.returned, handed)
        model.returned.insert(place, handed)
        model.sent.insert(place, (operation.value, None))
        self.note(model.channel.put_back(operation))

    # What must come of it.

    @invariant()
    def nothing_is_lost_doubled_or_delivered_to_the_wrong(self) -> None:
        if not hasattr(self, "models"):
            return
        pending = [value for model in self.models for value, _ in model.sent]
        assert max(self.received.values(), default=0) <= 1
        received = {value for value, count in self.received.items() if count}
        assert not received & (self.told_closed | self.withdrawn)
        assert self.told_sent <= received | set(pending)
        assert received <= self.told_sent

    @invariant()
    def nobody_waits_who_could_go_on(self) -> None:
        for model in getattr(self, "models", []):
            senders = [operation for _, operation in model.sent if operation is not None]
            if model.is_closed:
                assert not senders
                assert not model.receives
            if senders:
                assert model.buffered >= model.capacity
            for receiver in model.receives:
                assert not model.buffered
                assert not model.returned
                assert all(sender is receiver for sender in senders)

    # The model.

    def begin(self, owner: int, cases: list[Case], *, may_wait: bool = True) -> None:
        operation = Operation(cases, is_gone=lambda: operation in self.gone)
        self.owners[operation] = owner
        for case in cases:
            model = self.model_of(case)
            if isinstance(case, Send):
                model.sent.append((case.value, operation))
            else:
                model.receives.append(operation)
        self.note(begin(operation, may_wait=may_wait, rng=self.rng))
        if not may_wait and not operation.has_ended:
            could = [case for case in cases if self.is_ready(case, operation)]
            assert not could, "what can be done now is done"
            self.forget(operation)

    def is_ready(self, case: Case, operation: Operation) -> bool:
        model = self.model_of(case)
        others = [sender for _, sender in model.sent if sender is not operation]
        if isinstance(case, Send):
            receivers = [receiver for receiver in model.receives if receiver is not operation]
            return model.is_closed or bool(receivers) or model.buffered < model.capacity
        return model.is_closed or bool(others)

    def note(self, ended: list[Operation]) -> None:
        """Follow what the core says has ended."""
        for operation in ended:
            assert operation in self.owners
            assert operation not in self.gone
            self.forget(operation, but=None if operation.is_closed else operation.cases[operation.index])
        for operation in ended:
            case = operation.cases[operation.index]
            model = self.model_of(case)
            if operation.is_closed:
                assert model.is_closed
                if isinstance(case, Send):
                    self.told_closed.add(case.value)
                else:
                    assert not model.sent, "what is buffered is received first"
            elif isinstance(case, Send):
                assert not model.is_closed
                self.told_sent.add(case.value)
                # Buffered; or received, by whom comes before it in ended, and not there any more.
                model.sent = [(v, None if v == case.value else o) for v, o in model.sent]
            else:
                self.hand_over(model, operation.value, at_front=True)
                self.just_received = [*self.just_received, (operation, model, model.handed)][-4:]

    def hand_over(self, model: Model, value: int, *, at_front: bool) -> None:
        values = [sent for sent, _ in model.sent]
        if at_front:
            assert values[:1] == [value], "the oldest first"
            model.handed += 1
            model.returned = model.returned[1:]
        model.sent = [(sent, operation) for sent, operation in model.sent if sent != value]
        self.received[value] += 1
        self.told_sent.add(value)

    def forget(self, operation: Operation, but: Case | None = None) -> None:
        """Drop what an operation wished for, one case aside."""
        for case in operation.cases:
            model = self.model_of(case)
            if isinstance(case, Send):
                if case is not but and any(value == case.value for value, _ in model.sent):
                    model.sent = [(value, o) for value, o in model.sent if value != case.value]
                    self.withdrawn.add(case.value)
            elif operation in model.receives:
                model.receives.remove(operation)
        self.owners.pop(operation)

    def withdraw(self, operation: Operation) -> None:
        operation.withdraw()
        self.forget(operation)

    def waiting(self) -> list[Operation]:
        return list(getattr(self, "owners", {}))

    def model_of(self, case: Case) -> Model:
        return next(model for model in self.models if model.channel is case.channel)

    def send_case(self, where: int) -> Send:
        self.next_value += 1
        return Send(self.models[where].channel, self.next_value)


TestChannels = Channels.TestCase
TestChannels.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
