"""ONNX models: evaluated by onnxruntime on the CPU, differentiated through a torch conversion that is checked first."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adapters.described import Described, required
from adapters.torch_classifier import Normalised, check_input, check_output, no_rows, statistics
from bench.contracts import Classifier, Gradients, Realisation, adapter
from bench.errors import PluginError, did_you_mean

QUANTISED = {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm", "DequantizeLinear"}
TOLERANCE = 1e-4  # largest difference of a logit, conversion against onnxruntime, relative to the largest logit


@adapter("onnx")
class OnnxModel(Described):
    """An ONNX model, run by onnxruntime; its gradients come from a conversion to torch, where it converts.

    output: name of the graph's output that holds the logits, where it has several. feature_layers: names of
    intermediate tensors. The file holds its weights itself, and its batch dimension is dynamic.
    """

    requires: ClassVar[tuple[str, ...]] = ("torch", "onnx", "onnxruntime")

    output: str = ""
    feature_layers: tuple[str, ...] = ()
    stochastic: bool = False

    def build(self, weights: bytes | None) -> "OnnxClassifier":
        return OnnxClassifier(self, required(self, weights, "an ONNX file"))

    def place(self, classifier: Classifier, device: str) -> Classifier:
        """Stays on the CPU, whatever the device: onnxruntime runs there."""
        return classifier


class OnnxClassifier(Classifier):
    """Values come from onnxruntime where x requires no gradient, and from the torch conversion where it does.

    gradients is EXACT where the conversion exists and agrees with onnxruntime on random inputs in bounds, else NONE;
    then `gradients_reason` says why.
    """

    def __init__(self, fields: OnnxModel, data: bytes) -> None:
        self.input_shape = fields.input_shape
        self.bounds = fields.bounds
        self.classes = fields.classes
        self.stochastic = fields.stochastic
        self.feature_layers = fields.feature_layers
        self._prepare = Normalised(nn.Identity(), *statistics(fields.input_shape, fields.mean, fields.std))
        model = _parse(data)
        self._session = _session(data)
        self._input = _only_input(self._session)
        self._output = _choose_output(self._session, fields.output)
        self._feature_session = _session(_with_outputs(model, fields.feature_layers)) if fields.feature_layers else None
        operators = {node.op_type for node in model.graph.node}
        self.realisation = Realisation.INT8_RUNTIME if operators & QUANTISED else Realisation.DENSE
        self._converted, self.gradients_reason = self._convert(model)
        self.gradients = Gradients.EXACT if self._converted is not None else Gradients.NONE

    @property
    def module(self) -> nn.Module | None:
        """The torch conversion with its normalisation, or None where the graph does not convert."""
        return self._converted

    def logits(self, x: Tensor) -> Tensor:
        check_input(x, self.input_shape)
        if not len(x):
            return no_rows(x, self.classes)
        if self._converted is not None and x.requires_grad and torch.is_grad_enabled():
            return check_output(self._converted(x.to(torch.float32)), len(x), self.classes)
        return check_output(self._run(self._session, self._output, x), len(x), self.classes)

    def features(self, x: Tensor, layer: str) -> Tensor:
        """The intermediate tensor of that name, (n, ...) float32, from onnxruntime, without gradient."""
        if self._feature_session is None or layer not in self.feature_layers:
            return super().features(x, layer)
        check_input(x, self.input_shape)
        return self._run(self._feature_session, layer, x).to(torch.float32)

    def _run(self, session: Any, output: str, x: Tensor) -> Tensor:
        dtype = {"tensor(double)": torch.float64, "tensor(float16)": torch.float16}.get(self._input.type, torch.float32)
        values = self._prepare(x.detach().to(torch.float32)).to(dtype).contiguous().numpy()
        return torch.from_numpy(session.run([output], {self._input.name: values})[0])

    def _convert(self, model: Any) -> tuple[nn.Module | None, str]:
        """The conversion, if it agrees with onnxruntime, and otherwise the reason why there is none."""
        from adapters.onnx_torch import UnconvertibleError, convert

        x = torch.rand(3, *self.input_shape, generator=torch.Generator().manual_seed(0))
        x = self.bounds.low + (self.bounds.high - self.bounds.low) * x
        try:
            module = convert(model, self._output).float().eval().requires_grad_(False)
            converted = Normalised(module, self._prepare.mean, self._prepare.std)
            found = [check_output(converted(part), len(part), self.classes) for part in (x, x[:1])]
        except UnconvertibleError as problem:
            return None, str(problem)
        for part, values in zip((x, x[:1]), found, strict=True):
            truth = check_output(self._run(self._session, self._output, part), len(part), self.classes)
            difference = float((truth - values).abs().max() / truth.abs().max().clamp(min=1e-30))
            if not difference <= TOLERANCE:
                return (
                    None,
                    f"the conversion to torch differs from onnxruntime by {difference:.2g} of the largest logit",
                )
        return converted.eval(), ""


# --- onnxruntime ------------------------------------------------------------------------------------------------------


def _parse(data: bytes) -> Any:
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as problem:  # foreign bytes: what protobuf raises depends on its implementation
        line = str(problem).strip().partition("\n")[0]
        raise PluginError(
            f"the file is no valid ONNX model: {line}",
            "name a file of onnx.save or torch.onnx.export, or copy it again",
        ) from problem
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise PluginError(
            "the ONNX model keeps its weights in a second file",
            "save it as one: onnx.save(onnx.load(path), path, save_as_external_data=False)",
        )
    return model


def _session(data: bytes) -> Any:
    """With as many threads as torch has now."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors; its warnings are about its own optimiser
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # onnxruntime's exceptions share no base class
        line = str(problem).strip().partition("\n")[0]
        raise PluginError(
            f"onnxruntime {ort.__version__} cannot load the model: {line}", "export it again"
        ) from problem


def _only_input(session: Any) -> Any:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise PluginError(
            f"the ONNX model has {len(inputs)} inputs ({', '.join(value.name for value in inputs)}), not one",
            "export a model that takes x alone",
        )
    batch = (inputs[0].shape or [None])[0]
    if isinstance(batch, int):
        raise PluginError(
            f"the ONNX model takes batches of exactly {batch}",
            "export it with a dynamic first dimension (torch.onnx.export: dynamic_shapes or dynamic_axes)",
        )
    return inputs[0]


def _choose_output(session: Any, wanted: str) -> str:
    names = [value.name for value in session.get_outputs()]
    if not wanted and len(names) == 1:
        return str(names[0])
    if wanted in names:
        return wanted
    what = f"no output '{wanted}'{did_you_mean(wanted, names)}" if wanted else f"{len(names)} outputs"
    raise PluginError(f"the ONNX model has {what}", f"set `output:` to the one with the logits: {', '.join(names)}")


def _with_outputs(model: Any, layers: tuple[str, ...]) -> bytes:
    """The model with intermediate tensors as further outputs."""
    import onnx

    known = {name for node in model.graph.node for name in node.output}
    outputs = {value.name for value in model.graph.output}
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    for layer in layers:
        if layer not in known:
            raise PluginError(
                f"no feature layer '{layer}'{did_you_mean(layer, known)}", f"the graph has: {', '.join(sorted(known))}"
            )
        if layer not in outputs:
            wider.graph.output.append(onnx.ValueInfoProto(name=layer))
    data: bytes = wider.SerializeToString()
    return data
