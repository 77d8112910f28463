"""From a torch classifier to an ONNX file, float or int8, and what runs it: ONNX Runtime, or OpenVINO."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bench.contracts import Classifier, Samples
from bench.errors import PluginError

Target = Literal["eager", "compile", "onnx", "onnx_int8", "openvino", "openvino_int8"]
Run = Callable[[Tensor], Tensor]
CALIBRATED = frozenset({"onnx_int8", "openvino_int8"})
TOLERANCE = 1e-4  # largest difference of a logit, relative to the largest logit
INPUT, OUTPUT = "x", "logits"


class _Logits(nn.Module):
    """The scores of a classifier as a module: preprocessing inside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.module(x)
        return out


def export(source: Classifier) -> bytes:
    """The classifier as an ONNX model with a dynamic batch and its weights inside, float32, inputs in input units.

    Raises PluginError where it has no torch module, or torch cannot export it.
    """
    if source.module is None:
        raise PluginError("only models of torch can be deployed, and this one has no torch module")
    example = torch.rand(2, *source.input_shape, generator=torch.Generator().manual_seed(0))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of torchvision, which nobody asked for
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside torch's own exporter
            program = torch.onnx.export(
                _Logits(source.module).eval(),
                (example,),
                dynamo=True,
                dynamic_shapes={INPUT: {0: torch.export.Dim("n")}},
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
    except Exception as problem:  # the exporter raises whatever the module's code leads to
        line = str(problem).strip().partition("\n")[0]
        raise PluginError(f"torch.onnx.export cannot export the model: {line}", "use target 'eager'") from problem
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
    return data


def quantise(model: bytes, samples: Samples, count: int) -> bytes:
    """The ONNX model statically quantised: 8-bit weights per channel, 8-bit activations, QDQ form, MinMax ranges.

    samples: calibration data, of which `count` are taken, evenly spread.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    chosen = np.unique(np.linspace(0, len(samples) - 1, count).astype(np.int64))

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped base
        def __init__(self) -> None:
            self.batches: Iterator[Any] = iter(np.array_split(chosen, -(-len(chosen) // 32)))

        def get_next(self) -> dict[str, Any] | None:
            rows = next(self.batches, None)
            return None if rows is None else {INPUT: samples.fetch(rows).to(torch.float32).numpy()}

    with tempfile.TemporaryDirectory() as folder:
        plain, ready, small = (Path(folder, name) for name in ("float.onnx", "ready.onnx", "int8.onnx"))
        plain.write_bytes(model)
        level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)  # onnxruntime tells its advice through the root logger
        try:
            quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
            quantize_static(
                str(ready), str(small), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            )  # fmt: skip
        finally:
            logging.getLogger().setLevel(level)
        return small.read_bytes()


def session(model: bytes) -> Run:
    """What runs an ONNX model with as many threads as torch has now: (n, ...) float32 to (n, classes) float32."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors
    try:
        made = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # onnxruntime's exceptions share no base class
        raise PluginError(f"onnxruntime {ort.__version__} cannot load the converted model: {problem}") from problem

    def run(x: Tensor) -> Tensor:
        values = x.detach().to(torch.float32).contiguous().numpy()
        return torch.from_numpy(made.run([OUTPUT], {INPUT: values})[0])

    return run


def openvino_session(model: bytes) -> Run:
    """As `session`, by OpenVINO on the CPU, in float32 where the file says so. Raises PluginError where it is missing.

    Its converter, which reports to its vendor, is not used: OpenVINO reads ONNX itself.
    """
    try:
        import openvino as ov
    except ModuleNotFoundError:
        raise PluginError(
            "target 'openvino' needs the package openvino, which is not installed",
            "`pip install gauntlet-bench[openvino]`, or use target 'onnx'",
        ) from None
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # else it computes in bfloat16 wherever the processor can
    }
    try:
        core = ov.Core()
        made = core.compile_model(core.read_model(model), "CPU", settings)
    except RuntimeError as problem:
        raise PluginError(f"openvino {ov.__version__} cannot load the converted model: {problem}") from problem
    return lambda x: torch.from_numpy(made({INPUT: x.detach().to(torch.float32).contiguous().numpy()})[0].copy())


def compiled(source: Classifier) -> Run:
    """torch.compile of the classifier's module. Raises PluginError where it has none."""
    if source.module is None:
        raise PluginError("only models of torch can be compiled, and this one has no torch module")
    run: Run = torch.compile(_Logits(source.module).eval())
    return lambda x: run(x.to(torch.float32))


def check_agreement(source: Classifier, run: Run) -> None:
    """Raises PluginError unless both give the same logits, up to rounding, for batches of three and of one."""
    x = torch.rand(3, *source.input_shape, generator=torch.Generator().manual_seed(1))
    x = source.bounds.low + (source.bounds.high - source.bounds.low) * x
    with torch.no_grad():
        for part in (x, x[:1]):
            truth, found = source.logits(part), run(part)
            difference = float((truth - found).abs().max() / truth.abs().max().clamp(min=1e-30))
            if not difference <= TOLERANCE:
                raise PluginError(
                    f"the exported model differs from the torch model by {difference:.2g} of the largest logit",
                    "use target 'eager', and report the layer that is exported wrongly",
                )
