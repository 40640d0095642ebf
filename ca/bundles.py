"""The trust bundle's ConfigMap in every namespace with an identity. Edge of `ca.bundle`."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import structlog

from ca.bundle import trust_bundle_config_map
from ca.edge import Edge
from ca.foreign import Foreigners
from ca.identities import FOREIGN_LOOK_AGAIN
from ca.trust import Trust, TrustKeeper
from kube import apply as write
from kube import read
from kube.errors import AlreadyExistsError, NotFoundError
from kube.kinds import ConfigMap
from mesh import names

_log: Final = structlog.get_logger("ca.bundles")


class Bundles:
    """`mirror` is the ConfigMaps of ours as last seen; `inhabited` says whether a namespace has an identity, `going`
    whether it is being deleted: what goes with it is not made again, which would be refused."""

    def __init__(
        self,
        edge: Edge,
        keeper: TrustKeeper,
        mirror: Mapping[str, ConfigMap],
        inhabited: Callable[[str], bool],
        foreigners: Foreigners,
        *,
        going: Callable[[str], bool],
    ) -> None:
        self._edge, self._keeper, self._mirror = edge, keeper, mirror
        self._inhabited, self._going, self._foreigners = inhabited, going, foreigners

    async def reconcile(self, namespace: str) -> datetime | None:
        """Raises ApiError."""
        trust = self._keeper.trust
        if trust is None or self._going(namespace):
            return None
        seen = self._mirror.get(f"{namespace}/{names.TRUST_BUNDLE_CONFIG_MAP}")
        if not self._inhabited(namespace):
            self._foreigners.gone("ConfigMap", f"{namespace}/{names.TRUST_BUNDLE_CONFIG_MAP}")
            if seen is not None:
                await self._remove(namespace, seen)
            return None
        if seen is None:
            return await self._create(namespace, trust)
        wanted = trust.bundle.pem.decode()
        if (seen.data or {}).get(names.TRUST_BUNDLE_KEY) != wanted or len(seen.data or {}) != 1:
            manifest = trust_bundle_config_map(
                self._edge.owner, namespace, trust.bundle, resource_version=seen.metadata.resource_version
            )
            await write.apply(self._edge.api, manifest, manager=names.CA_FIELD_MANAGER)
        return None

    async def _create(self, namespace: str, trust: Trust) -> datetime | None:
        manifest = trust_bundle_config_map(self._edge.owner, namespace, trust.bundle)
        key = f"{namespace}/{names.TRUST_BUNDLE_CONFIG_MAP}"
        try:
            await write.create(self._edge.api, manifest, manager=names.CA_FIELD_MANAGER)
        except AlreadyExistsError:
            path = write.object_path("v1", "configmaps", names.TRUST_BUNDLE_CONFIG_MAP, namespace)
            return await self._judge_unseen(key, path)
        self._foreigners.gone("ConfigMap", key)
        return None

    async def _judge_unseen(self, key: str, path: str) -> datetime | None:
        """An object that our mirror does not show: not labelled as ours, or too new for it to have arrived."""
        try:
            live = await read.get(self._edge.api, path, ConfigMap)
        except NotFoundError:
            return self._edge.clock()
        if self._edge.owner.labelled(live.metadata):
            return None  # it arrives in the mirror, and with it the next look
        self._foreigners.found("ConfigMap", live.metadata)
        return self._edge.clock() + FOREIGN_LOOK_AGAIN

    async def _remove(self, namespace: str, seen: ConfigMap) -> None:
        path = write.object_path("v1", "configmaps", names.TRUST_BUNDLE_CONFIG_MAP, namespace)
        meta = seen.metadata
        try:
            await write.delete(self._edge.api, path, uid=meta.uid, resource_version=meta.resource_version)
        except NotFoundError:
            return
        _log.info("bundle_removed", ns=namespace)
