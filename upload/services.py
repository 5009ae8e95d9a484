"""Redis and S3 as the work needs them: tried at the start and after each failure."""

from checkpoint import describe_store
from errors import Service
from folder.scan import ScanRequests
from scheduling.outages import CircuitBreakers
from upload.folder_claim import claim_folder
from upload.site import Site
from upload.store_marker import StoreMarker


class Services:
    """Knows when a service works for us, which is more than that it answers. For any thread.

    Parameters:
        site: where recordings come from and go to.
        marker: knows whether this is the store that the records are about.
        breakers: whether the services work.
        scans: have the folder scanned when Redis is back.
        alone: no other daemon can use this Redis, so leases in it are those of dead ones.
    """

    def __init__(
        self, site: Site, *, marker: StoreMarker, breakers: CircuitBreakers, scans: ScanRequests, alone: bool
    ) -> None:
        self._site = site
        self._marker = marker
        self._breakers = breakers
        self._scans = scans
        self._alone = alone

    def probe(self, service: Service) -> None:
        """Try a service.

        Raises:
            StoreUnavailable: it does not work, or it is not the one that the records are about.
        """
        if service == "redis":
            self._probe_redis()
        else:
            self._site.store.renew_credentials()
            self._marker.open()

    def _probe_redis(self) -> None:
        checkpoints = self._site.checkpoints
        checkpoints.prepare(describe_store(self._site.store.bucket, self._site.layout.prefix))
        checkpoints.mend_index()
        claim_folder(checkpoints, self._site.root)
        if self._alone and not self._breakers.reached("redis"):
            checkpoints.end_all()

    def works_again(self, service: Service) -> None:
        """Close the breaker of a service that was tried; sources that nobody looked up are scanned for."""
        if self._breakers.succeed(service) and service == "redis":
            self._scans.add()
