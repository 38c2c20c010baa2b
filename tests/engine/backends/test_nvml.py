"""Energy and memory by NVML, from a fake of the library."""

from typing import Any

import pytest
from stvsr.engine.backends import nvml
from stvsr.engine.backends.nvml import GpuMeter, driver_version


class FakeNvml:
    """The functions of the library that are used; each returns 0 for success, and writes through its pointers."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.uuids = failing, []  # type: ignore[var-annotated]

    def _code(self, name: str) -> int:
        return int(name == self.failing)

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802
        self.uuids.append(uuid)
        handle._obj.value = 7
        return self._code("handle")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, millijoules: Any) -> int:  # noqa: N802
        assert handle.value == 7
        millijoules._obj.value = 1500
        return self._code("energy")

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802
        memory._obj.used = 3 << 30
        return self._code("memory")

    def nvmlSystemGetDriverVersion(self, text: Any, length: int) -> int:  # noqa: N802
        text.value = b"580.1"
        return self._code("driver")


def use(monkeypatch: pytest.MonkeyPatch, library: FakeNvml | None) -> None:
    monkeypatch.setattr(nvml, "load_nvml", lambda: library)
    monkeypatch.setattr(nvml, "device_uuid", lambda index: f"GPU-{index}")


def test_a_gpu_is_read_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, library := FakeNvml())
    meter = GpuMeter(1)
    assert library.uuids == [b"GPU-1"], "the driver and NVML count devices differently"
    assert (meter.joules(), meter.used_bytes(), driver_version()) == (1.5, 3 << 30, "580.1")


@pytest.mark.parametrize("failing", ["handle", "energy", "memory", "driver"])
def test_a_figure_that_is_not_known_is_absent(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeNvml(failing))
    meter = GpuMeter(0)
    absent = {"handle": {"energy", "memory"}}.get(failing, {failing})
    found = {"energy": meter.joules(), "memory": meter.used_bytes(), "driver": driver_version()}
    assert {name for name, value in found.items() if value is None} == absent


def test_without_the_library_or_a_gpu_there_are_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, None)
    assert (GpuMeter(0).joules(), GpuMeter(0).used_bytes(), driver_version()) == (None, None, None)
    use(monkeypatch, FakeNvml())
    assert GpuMeter(None).joules() is None
