"""Which ports NetworkPolicies leave open for a pod. Pure. Source: k8s.io/api/networking/v1 types.go.

Who may connect (`from`, `to`) is not looked at: a policy that forgets our port forgets it for everybody.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mesh.pod import ObjectMeta, Pod, Wire


class Requirement(Wire, frozen=True):
    """One of a label selector's `matchExpressions`."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None

    def holds(self, labels: Mapping[str, str]) -> bool:
        if self.operator == "Exists":
            return self.key in labels
        if self.operator == "DoesNotExist":
            return self.key not in labels
        inside = labels.get(self.key) in (self.values or ())
        # NotIn holds where the label is absent (apimachinery pkg/labels/selector.go).
        return inside if self.operator == "In" else not inside


class Selector(Wire, frozen=True):
    """A label selector; the empty one selects everything."""

    match_labels: Mapping[str, str] | None = None
    match_expressions: tuple[Requirement, ...] | None = None

    def selects(self, labels: Mapping[str, str]) -> bool:
        equal = all(labels.get(key) == value for key, value in (self.match_labels or {}).items())
        return equal and all(each.holds(labels) for each in self.match_expressions or ())


class PolicyPort(Wire, frozen=True):
    protocol: str | None = None
    port: int | str | None = None
    end_port: int | None = None

    def covers(self, number: int) -> bool:
        """Named ports are names of the pod's own: ours have none that a policy could mean."""
        if (self.protocol or "TCP") != "TCP" or isinstance(self.port, str):
            return False
        return self.port is None or self.port <= number <= (self.end_port or self.port)


class Rule(Wire, frozen=True):
    """Of `ingress` or `egress`: without ports it allows all."""

    ports: tuple[PolicyPort, ...] | None = None

    def allows(self, number: int) -> bool:
        return not self.ports or any(each.covers(number) for each in self.ports)


class PolicySpec(Wire, frozen=True):
    pod_selector: Selector = Selector()
    policy_types: tuple[str, ...] | None = None
    ingress: tuple[Rule, ...] | None = None
    egress: tuple[Rule, ...] | None = None

    def rules(self, direction: str) -> tuple[Rule, ...] | None:
        """None: the policy says nothing about `direction` (`Ingress`, `Egress`)."""
        # The API server fills policyTypes in.
        if direction not in (self.policy_types or ("Ingress",)):
            return None
        return (self.ingress if direction == "Ingress" else self.egress) or ()


class NetworkPolicy(Wire, frozen=True):
    metadata: ObjectMeta
    spec: PolicySpec = PolicySpec()

    def selects(self, pod: Pod) -> bool:
        same = self.metadata.namespace == pod.metadata.namespace
        return same and self.spec.pod_selector.selects(pod.metadata.labels or {})


@dataclass(frozen=True, slots=True)
class Isolation:
    """What the policies of one direction allow a pod together. No policy: everything."""

    policies: tuple[str, ...]
    rules: tuple[Rule, ...]

    def forgets(self, number: int) -> bool:
        """True when something is allowed and `number` is not. Where nothing is allowed, nothing is missing."""
        return bool(self.policies) and bool(self.rules) and not any(rule.allows(number) for rule in self.rules)


def isolation(pod: Pod, policies: Iterable[NetworkPolicy], direction: str) -> Isolation:
    """The policies are additive: what one allows is allowed."""
    names: list[str] = []
    rules: list[Rule] = []
    for policy in policies:
        found = policy.spec.rules(direction)
        if found is not None and policy.selects(pod):
            names.append(policy.metadata.name)
            rules.extend(found)
    return Isolation(tuple(sorted(names)), tuple(rules))
