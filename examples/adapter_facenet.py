"""facenet-pytorch behind the mixer: MTCNN finds the face, InceptionResnetV1 sees a cancelable one."""

import io
import tempfile
from pathlib import Path

import torch
from facenet_pytorch import MTCNN
from PIL import Image

from anonymix_adapters.facenet import interceptor_of, network, protect
from anonymix_keystore import Keystore, PassphraseUnlock
from anonymix_plugin import Anonymixer

people = Path(__file__).parents[1] / "tests" / "people"
anna, ben = ([(people / f"{name}_{n}.jpg").read_bytes() for n in (1, 2)] for name in ("alex", "billie"))
mtcnn = MTCNN()
net = network()  # the registry's weights; InceptionResnetV1(pretrained="vggface2") where it can be downloaded


def embed(photo: bytes) -> torch.Tensor:
    return torch.nn.functional.normalize(net(mtcnn(Image.open(io.BytesIO(photo)))[None]))[0]


with tempfile.TemporaryDirectory() as folder:
    unlock = PassphraseUnlock(b"correct horse battery staple")
    with Keystore.create(Path(folder) / "keys.db", unlock) as keys, Anonymixer(keys) as mixer:
        protect(net, mixer, mtcnn=mtcnn)
        with interceptor_of(net).enrolment("anna", collection="door", external_id="1"):
            enrolled = embed(anna[0])
        with mixer.subject("anna"):
            print(f"anna again:  {enrolled @ embed(anna[1]):.2f}")
            print(f"ben as anna: {enrolled @ embed(ben[0]):.2f}")
        keys.rotate("anna", reason="breach")
        with mixer.subject("anna"):
            print(f"new key:     {enrolled @ embed(anna[1]):.2f}")
