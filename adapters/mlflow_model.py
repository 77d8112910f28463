"""A model of MLflow's model registry, registered by `gauntlet models register`."""

import json
import os
from typing import Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr

from bench.contracts import Adapter, Classifier, adapter, adapters
from bench.errors import PluginError


@adapter("mlflow")
class RegisteredModel(Adapter):
    """A registered model by name and version, built by the adapter it was registered with.

    uri: `models:/name/3`, `name/3`, or `name` for the newest version. tracking_uri: the server it is registered at; the
    default is the environment variable MLFLOW_TRACKING_URI. Only the driver talks to that server: it fetches adapter,
    arguments and weights as one artefact, which workers receive like the weights of any model.
    """

    local: ClassVar[bool] = True
    where = frozenset({"weights", "uri", "tracking_uri"})

    uri: Annotated[str, Field(pattern=r"^(models:/)?[A-Za-z0-9_][A-Za-z0-9_.-]*(/([1-9][0-9]*|latest))?$")]
    tracking_uri: str | None = None

    _builder: Adapter | None = PrivateAttr(None)  # the inner adapter, once it has built

    def artefact(self) -> bytes:
        """One line of JSON, then the weights: bench.models.bundle, the one thing an adapter asks of the engine.

        Raises TrackingError, DataError (the files were changed), PluginError (its adapter is not known here).
        """
        from bench.models import bundle

        server = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if not server:
            raise PluginError(
                f"registered model '{self.uri}': no registry is named",
                "give `tracking_uri`, or set the environment variable MLFLOW_TRACKING_URI",
            )
        return bundle(self.uri, server)

    def build(self, weights: bytes | None) -> Classifier:
        """weights: what `artefact` returned. Raises PluginError where the inner adapter is not known, or refuses."""
        head, content = self._open(weights)
        self._builder = self._inner(head)
        classifier = self._builder.build(content)
        if classifier.size_bytes() is None and content is not None:
            size = len(content)  # of the model's own file, without the line in front of it
            classifier.size_bytes = lambda: size  # type: ignore[method-assign]
        return classifier

    def place(self, classifier: Classifier, device: str) -> Classifier:
        """As the inner adapter does it, if it built the classifier."""
        return self._builder.place(classifier, device) if self._builder else super().place(classifier, device)

    def _open(self, artefact: bytes | None) -> tuple[dict[str, Any], bytes | None]:
        line, _, content = (artefact or b"").partition(b"\n")
        try:
            head = json.loads(line)
            return head, content if head["weights"] is not None else None
        except (ValueError, KeyError, TypeError) as error:
            raise PluginError(
                f"registered model '{self.uri}': these bytes are not what the model registry gave", "run it again"
            ) from error

    def _inner(self, head: dict[str, Any]) -> Adapter:
        name = head["adapter"]
        if name not in adapters:
            raise PluginError(
                f"registered model '{self.uri}': {adapters.unknown(name)}",
                "name the module that registers this adapter under `plugins:` in the suite",
            )
        return adapters.build(name, head["args"])
