"""What this host's CPU can do, as programs see it: AT_HWCAP and the flag names of /proc/cpuinfo.

Linux counterpart: ``arch/x86/kernel/cpu/common.c`` and ``ARCH_DLINFO``.  It owns nothing but caches of constants.
Guests execute CPUID themselves and see the host's answer; so a saved guest can go on only where every feature that it
may have found is still there, which :class:`FeatureSet` decides.
"""

from __future__ import annotations

import functools
import struct
from typing import Final, NamedTuple

from .xstate import host_layout

__all__ = ["AT_HWCAP", "AT_HWCAP2", "AT_MINSIGSTKSZ", "FeatureSet", "host_auxv", "host_features"]

AT_HWCAP: Final = 16
AT_HWCAP2: Final = 26
AT_MINSIGSTKSZ: Final = 51

#: Flags of /proc/cpuinfo that add instructions or state which user code can use without asking the kernel.
_USER_FLAGS: Final = (
    "3dnow 3dnowext abm adx aes amx_bf16 amx_complex amx_fp16 amx_int8 amx_tile avx avx2 avx512_4fmaps avx512_4vnniw "
    "avx512_bf16 avx512_bitalg avx512_fp16 avx512_vbmi2 avx512_vnni avx512_vp2intersect avx512_vpopcntdq avx512bw "
    "avx512cd avx512dq avx512er avx512f avx512ifma avx512pf avx512vbmi avx512vl avx_ifma avx_ne_convert avx_vnni "
    "avx_vnni_int16 avx_vnni_int8 bmi1 bmi2 cldemote clflush clflushopt clwb clzero cmov cmpccxadd cx16 cx8 enqcmd "
    "erms f16c fma fma4 fpu fsgsbase fsrm fxsr fxsr_opt gfni hle lahf_lm lzcnt misalignsse mmx mmxext monitorx movbe "
    "movdir64b movdiri mwaitx ospke pclmulqdq pku pni popcnt prefetchi prefetchw ptwrite raoint rdpid rdrand rdseed "
    "rdtscp rtm serialize sha512 sha_ni sm3 sm4 sse sse2 sse4_1 sse4_2 sse4a ssse3 tbm tsc user_shstk vaes vpclmulqdq "
    "waitpkg xgetbv1 xop xsave xsavec xsaveopt"
)
USER_FLAGS: Final = frozenset(_USER_FLAGS.split())


@functools.cache
def host_auxv() -> dict[int, int]:
    """Return this process's auxiliary vector: the host's AT_HWCAP, AT_HWCAP2, AT_MINSIGSTKSZ and so on.

    From /proc, because glibc's getauxval answers AT_HWCAP with bits of its own on x86.
    """
    with open("/proc/self/auxv", "rb") as file:
        return dict(struct.iter_unpack("=QQ", file.read()))


class FeatureSet(NamedTuple):
    """What a CPU offers to user code: compared when a snapshot moves to another host."""

    #: Names as in /proc/cpuinfo, only those that user code can notice.
    flags: frozenset[str]
    #: State components that the operating system enabled (XCR0).
    xfeatures: int
    #: (component, offset, size) of the XSAVE area, by component.
    xstate_layout: tuple[tuple[int, int, int], ...]

    def missing_on(self, host: FeatureSet) -> list[str]:
        """Return what a program that was shown this set would miss on *host*; empty when it can run there."""
        missing = sorted(self.flags - host.flags)
        if absent := self.xfeatures & ~host.xfeatures:
            missing.append(f"xfeatures {absent:#x}")
        elif not set(self.xstate_layout) <= set(host.xstate_layout):
            missing.append("the layout of the XSAVE area")
        return missing


@functools.cache
def host_features() -> FeatureSet:
    """Return the features of this host."""
    features, _size, components = host_layout().plain()
    return FeatureSet(flags=_cpuinfo_flags() & USER_FLAGS, xfeatures=features, xstate_layout=components)


def _cpuinfo_flags() -> frozenset[str]:
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()
