"""Networks with random weights, written as ONNX by the exporters that people use.

`FAMILIES` names them as `source/name`. `python exporters.py NAME EXPORTER PATH` writes one; each exporter
has a process of its own, as they do not bear each other: PyTorch (`dynamo`, `older`), Keras by tf2onnx
(`keras`), Paddle (`paddle`).
"""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np

# A small image keeps the work short; some networks end in a pooling that only fits larger ones.
SIDE = {"torchvision/vgg11_bn": 224, "torchvision/inception_v3": 128, "timm/inception_v4": 128,
        "timm/mobilevit_xxs": 128, "timm/edgenext_xx_small": 128, "timm/levit_128s": 224, "timm/visformer_tiny": 224}
TORCHVISION = [
    "resnet18", "densenet121", "googlenet", "squeezenet1_1", "shufflenet_v2_x1_0", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0",
    "efficientnet_v2_s", "regnet_y_400mf", "convnext_tiny", "mnasnet1_0", "lraspp_mobilenet_v3_large",
    "deeplabv3_mobilenet_v3_large", "resnet50", "resnext50_32x4d", "inception_v3", "wide_resnet50_2", "vgg11_bn",
]
TIMM = [
    "mobilenetv1_100", "mobilenetv4_conv_small", "efficientnet_lite0", "ghostnet_100", "repvgg_a0", "dla34", "hrnet_w18_small",
    "res2net50_26w_4s", "skresnet18", "cspdarknet53", "ese_vovnet19b_dw", "fbnetc_100", "mixnet_s", "tinynet_e",
    "edgenext_xx_small", "mobilevit_xxs", "rexnet_100", "inception_v4", "efficientvit_b0", "convnextv2_atto",
    "poolformer_s12", "dpn48b", "levit_128s", "visformer_tiny", "starnet_s1",
]
FAMILIES = (
    [f"torchvision/{name}" for name in TORCHVISION]
    + [f"timm/{name}" for name in TIMM]
    + ["own/resnet20_option_a", "own/unet"]
    + ["keras/MobileNetV2", "keras/ResNet50V2", "keras/DenseNet121", "keras/EfficientNetB0", "keras/Xception"]
    + ["paddle/resnet18", "paddle/mobilenet_v2", "paddle/shufflenet_v2_x0_5"]
)


def exporter(name):
    """The exporter that writes a network: PyTorch's two take turns."""
    source = name.split("/")[0]
    family = [other for other in FAMILIES if other.split("/")[0] == source]
    place = family.index(name) if name in family else 0
    return {"keras": "keras", "paddle": "paddle"}.get(source, ["dynamo", "older"][place % 2])


def side(name):
    return SIDE.get(name, 64)


def export(name, exporter, path):
    """Exporters print what they think; nothing of it is of use here but the last line of a failure."""
    ran = subprocess.run([sys.executable, __file__, name, exporter, str(path)], capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError("not exported: " + (ran.stderr.strip().splitlines() or [str(ran.returncode)])[-1])


def some(name, n=8):
    """Random images, on which batch norms take their statistics."""
    return np.random.default_rng(5).standard_normal((n, 3, side(name), side(name))).astype(np.float32)


def torch(name, exporter, path):
    import torch as t

    t.manual_seed(0)
    model = torch_network(name)
    # So that no two vectors are equal, as exporters store such once, and batch norms normalise.
    with t.no_grad():
        for module in model.modules():
            if isinstance(module, t.nn.Conv2d | t.nn.Linear):
                t.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if isinstance(module, t.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.momentum = 1.0
            if getattr(module, "bias", None) is not None:
                module.bias.normal_(0, 0.1)
        model.train()(t.from_numpy(some(name)))
    x = t.from_numpy(some(name, 1))
    t.onnx.export(model.eval(), (x,), str(path), dynamo=exporter == "dynamo", external_data=False,
                  input_names=["input"], output_names=["output"])


def torch_network(name):
    source, name = name.split("/")
    if source == "timm":
        import timm

        return timm.create_model(name, pretrained=False, exportable=True)
    if source == "torchvision":
        import torchvision

        if name.startswith(("lraspp", "deeplab")):
            return only_output(torchvision.models.get_model(name, weights=None, weights_backbone=None))
        return torchvision.models.get_model(name, weights=None)
    return {"resnet20_option_a": resnet20, "unet": unet}[name]()


def only_output(model):
    """A segmenter without the dictionary around its output."""
    import torch as t

    class Plain(t.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x)["out"]

    return Plain()


def resnet20():
    """He et al. 2015, section 4.2: shortcuts by slicing and padding (option A)."""
    import torch as t
    from torch.nn import functional as f

    class Block(t.nn.Module):
        def __init__(self, n_in, n_out, stride):
            super().__init__()
            self.conv1, self.bn1 = t.nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), t.nn.BatchNorm2d(n_out)
            self.conv2, self.bn2 = t.nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), t.nn.BatchNorm2d(n_out)
            self.stride, self.more = stride, (n_out - n_in) // 2

        def forward(self, x):
            y = self.bn2(self.conv2(f.relu(self.bn1(self.conv1(x)))))
            short = x[:, :, ::2, ::2] if self.stride == 2 else x
            return f.relu(y + f.pad(short, (0, 0, 0, 0, self.more, self.more)))

    widths = [(16, 16, 1)] * 3 + [(16, 32, 2), (32, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1)]
    start = [t.nn.Conv2d(3, 16, 3, 1, 1, bias=False), t.nn.BatchNorm2d(16), t.nn.ReLU()]
    end = [t.nn.AdaptiveAvgPool2d(1), t.nn.Flatten(), t.nn.Linear(64, 10)]
    return t.nn.Sequential(*start, *(Block(*width) for width in widths), *end)


def unet():
    """Ronneberger et al. 2015, small: two levels, transposed convolutions, concatenated skips."""
    import torch as t

    def double(n_in, n_out):
        layers = []
        for width in (n_in, n_out):
            layers += [t.nn.Conv2d(width, n_out, 3, padding=1), t.nn.BatchNorm2d(n_out), t.nn.ReLU()]
        return t.nn.Sequential(*layers)

    class Unet(t.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = double(3, 32), double(32, 64), double(64, 128)
            self.up2, self.back2 = t.nn.ConvTranspose2d(128, 64, 2, 2), double(128, 64)
            self.up1, self.back1 = t.nn.ConvTranspose2d(64, 32, 2, 2), double(64, 32)
            self.pool, self.last = t.nn.MaxPool2d(2), t.nn.Conv2d(32, 2, 1)

        def forward(self, x):
            one = self.one(x)
            two = self.two(self.pool(one))
            up = self.back2(t.cat([self.up2(self.three(self.pool(two))), two], 1))
            return self.last(self.back1(t.cat([self.up1(up), one], 1)))

    return Unet()


def keras(name, _exporter, path):
    """Keras' own exporter, which goes through tf2onnx; its networks are channels-last inside."""
    import tensorflow as tf
    import tf2onnx

    tf.keras.utils.set_random_seed(0)
    build = getattr(tf.keras.applications, name.split("/")[1])
    model = build(weights=None, input_shape=(side(name), side(name), 3), classes=10, classifier_activation=None)
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 1.5, values.shape) for values in layer.get_weights()])
            layer.momentum = 0.0
    model(some(name).transpose(0, 2, 3, 1), training=True)
    spec = [tf.TensorSpec((1, side(name), side(name), 3), tf.float32, name="input")]
    call = tf.function(lambda x: model(x, training=False), input_signature=spec)
    tf2onnx.convert.from_function(call, spec, opset=18, inputs_as_nchw=["input"], output_path=str(path))


def paddle(name, _exporter, path):
    import paddle as p

    p.seed(0)
    model = getattr(p.vision.models, name.split("/")[1])(pretrained=False)
    for layer in model.sublayers():
        if isinstance(layer, p.nn.BatchNorm2D):
            layer._momentum = 0.0
    model.train()
    model(p.to_tensor(some(name)))
    model.eval()
    spec = [p.static.InputSpec([1, 3, side(name), side(name)], "float32", "input")]
    p.onnx.export(model, str(Path(path).with_suffix("")), input_spec=spec, opset_version=13)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    {"keras": keras, "paddle": paddle}.get(sys.argv[2], torch)(*sys.argv[1:])
