#include "textflag.h"

// Two blocks of two messages at a time with the SHA extensions of x86: each
// instruction that does two rounds waits for the one before it, so that the
// rounds of a second message fill the time in which those of the first wait.
//
// Registers: X0 is what SHA256RNDS2 takes its words and constants from. Lane 0
// has its state in X1 (A B E F) and X2 (C D G H), its message words in X3-X6; lane 1
// X7, X8 and X9-X12. X13 and X14 are for the schedule, X15 holds the byte order mask.

// ROUNDS does four rounds, with the words in m and the constants at off(AX).
#define ROUNDS(off, m, abef, cdgh) \
	MOVO        m, X0          \
	PADDD       off(AX), X0    \
	SHA256RNDS2 X0, abef, cdgh \
	PSHUFD      $0x0E, X0, X0  \
	SHA256RNDS2 X0, cdgh, abef

// NEXT makes the four words that follow those in cur of the ones in next, to which FIRST was done, and those in prev.
#define NEXT(prev, cur, next, tmp) \
	MOVO       cur, tmp      \
	PALIGNR    $4, prev, tmp \
	PADDD      tmp, next     \
	SHA256MSG2 cur, next

// LOAD loads four words of the message at ptr.
#define LOAD(off, ptr, m) \
	MOVOU  off(ptr), m \
	PSHUFB X15, m

// PACK turns the state at ptr, words A to H, into A B E F and C D G H, as the instructions want them.
#define PACK(ptr, abef, cdgh) \
	MOVOU   (ptr), abef       \
	MOVOU   16(ptr), cdgh     \
	PSHUFD  $0xB1, abef, abef \
	PSHUFD  $0x1B, cdgh, cdgh \
	MOVO    abef, X13         \
	PALIGNR $8, cdgh, abef    \
	PBLENDW $0xF0, X13, cdgh

// UNPACK is the way back.
#define UNPACK(ptr, abef, cdgh) \
	PSHUFD  $0x1B, abef, abef \
	PSHUFD  $0xB1, cdgh, cdgh \
	MOVO    abef, X13         \
	PBLENDW $0xF0, cdgh, abef \
	PALIGNR $8, X13, cdgh     \
	MOVOU   abef, (ptr)       \
	MOVOU   cdgh, 16(ptr)

// func blocks2(s0, s1 *[8]uint32, p0, p1 *byte, blocks int)
TEXT ·blocks2(SB), NOSPLIT, $64-40
	MOVQ  s0+0(FP), DI
	MOVQ  s1+8(FP), SI
	MOVQ  p0+16(FP), R8
	MOVQ  p1+24(FP), R9
	MOVQ  blocks+32(FP), CX
	LEAQ  constants<>(SB), AX
	MOVOU order<>(SB), X15
	PACK(DI, X1, X2)
	PACK(SI, X7, X8)
	TESTQ CX, CX
	JZ    done

loop:
	MOVOU X1, 0(SP)
	MOVOU X2, 16(SP)
	MOVOU X7, 32(SP)
	MOVOU X8, 48(SP)

	LOAD(0, R8, X3)
	LOAD(0, R9, X9)
	ROUNDS(0, X3, X1, X2)
	ROUNDS(0, X9, X7, X8)
	LOAD(16, R8, X4)
	LOAD(16, R9, X10)
	ROUNDS(16, X4, X1, X2)
	ROUNDS(16, X10, X7, X8)
	SHA256MSG1 X4, X3
	SHA256MSG1 X10, X9
	LOAD(32, R8, X5)
	LOAD(32, R9, X11)
	ROUNDS(32, X5, X1, X2)
	ROUNDS(32, X11, X7, X8)
	SHA256MSG1 X5, X4
	SHA256MSG1 X11, X10
	LOAD(48, R8, X6)
	LOAD(48, R9, X12)
	ROUNDS(48, X6, X1, X2)
	ROUNDS(48, X12, X7, X8)
	NEXT(X5, X6, X3, X13)
	NEXT(X11, X12, X9, X14)
	SHA256MSG1 X6, X5
	SHA256MSG1 X12, X11
	ROUNDS(64, X3, X1, X2)
	ROUNDS(64, X9, X7, X8)
	NEXT(X6, X3, X4, X13)
	NEXT(X12, X9, X10, X14)
	SHA256MSG1 X3, X6
	SHA256MSG1 X9, X12
	ROUNDS(80, X4, X1, X2)
	ROUNDS(80, X10, X7, X8)
	NEXT(X3, X4, X5, X13)
	NEXT(X9, X10, X11, X14)
	SHA256MSG1 X4, X3
	SHA256MSG1 X10, X9
	ROUNDS(96, X5, X1, X2)
	ROUNDS(96, X11, X7, X8)
	NEXT(X4, X5, X6, X13)
	NEXT(X10, X11, X12, X14)
	SHA256MSG1 X5, X4
	SHA256MSG1 X11, X10
	ROUNDS(112, X6, X1, X2)
	ROUNDS(112, X12, X7, X8)
	NEXT(X5, X6, X3, X13)
	NEXT(X11, X12, X9, X14)
	SHA256MSG1 X6, X5
	SHA256MSG1 X12, X11
	ROUNDS(128, X3, X1, X2)
	ROUNDS(128, X9, X7, X8)
	NEXT(X6, X3, X4, X13)
	NEXT(X12, X9, X10, X14)
	SHA256MSG1 X3, X6
	SHA256MSG1 X9, X12
	ROUNDS(144, X4, X1, X2)
	ROUNDS(144, X10, X7, X8)
	NEXT(X3, X4, X5, X13)
	NEXT(X9, X10, X11, X14)
	SHA256MSG1 X4, X3
	SHA256MSG1 X10, X9
	ROUNDS(160, X5, X1, X2)
	ROUNDS(160, X11, X7, X8)
	NEXT(X4, X5, X6, X13)
	NEXT(X10, X11, X12, X14)
	SHA256MSG1 X5, X4
	SHA256MSG1 X11, X10
	ROUNDS(176, X6, X1, X2)
	ROUNDS(176, X12, X7, X8)
	NEXT(X5, X6, X3, X13)
	NEXT(X11, X12, X9, X14)
	SHA256MSG1 X6, X5
	SHA256MSG1 X12, X11
	ROUNDS(192, X3, X1, X2)
	ROUNDS(192, X9, X7, X8)
	NEXT(X6, X3, X4, X13)
	NEXT(X12, X9, X10, X14)
	SHA256MSG1 X3, X6
	SHA256MSG1 X9, X12
	ROUNDS(208, X4, X1, X2)
	ROUNDS(208, X10, X7, X8)
	NEXT(X3, X4, X5, X13)
	NEXT(X9, X10, X11, X14)
	ROUNDS(224, X5, X1, X2)
	ROUNDS(224, X11, X7, X8)
	NEXT(X4, X5, X6, X13)
	NEXT(X10, X11, X12, X14)
	ROUNDS(240, X6, X1, X2)
	ROUNDS(240, X12, X7, X8)

	MOVOU 0(SP), X13
	PADDD X13, X1
	MOVOU 16(SP), X13
	PADDD X13, X2
	MOVOU 32(SP), X13
	PADDD X13, X7
	MOVOU 48(SP), X13
	PADDD X13, X8
	ADDQ  $64, R8
	ADDQ  $64, R9
	DECQ  CX
	JNZ   loop

done:
	UNPACK(DI, X1, X2)
	UNPACK(SI, X7, X8)
	RET

// order turns big-endian words into little-endian ones.
DATA order<>+0(SB)/8, $0x0405060700010203
DATA order<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL order<>(SB), NOPTR|RODATA, $16

// The constants of FIPS 180-4, 4.2.2: the first 32 bits of the fractional parts of the
// cube roots of the first 64 primes.
DATA constants<>+0(SB)/8, $0x71374491428a2f98
DATA constants<>+8(SB)/8, $0xe9b5dba5b5c0fbcf
DATA constants<>+16(SB)/8, $0x59f111f13956c25b
DATA constants<>+24(SB)/8, $0xab1c5ed5923f82a4
DATA constants<>+32(SB)/8, $0x12835b01d807aa98
DATA constants<>+40(SB)/8, $0x550c7dc3243185be
DATA constants<>+48(SB)/8, $0x80deb1fe72be5d74
DATA constants<>+56(SB)/8, $0xc19bf1749bdc06a7
DATA constants<>+64(SB)/8, $0xefbe4786e49b69c1
DATA constants<>+72(SB)/8, $0x240ca1cc0fc19dc6
DATA constants<>+80(SB)/8, $0x4a7484aa2de92c6f
DATA constants<>+88(SB)/8, $0x76f988da5cb0a9dc
DATA constants<>+96(SB)/8, $0xa831c66d983e5152
DATA constants<>+104(SB)/8, $0xbf597fc7b00327c8
DATA constants<>+112(SB)/8, $0xd5a79147c6e00bf3
DATA constants<>+120(SB)/8, $0x1429296706ca6351
DATA constants<>+128(SB)/8, $0x2e1b213827b70a85
DATA constants<>+136(SB)/8, $0x53380d134d2c6dfc
DATA constants<>+144(SB)/8, $0x766a0abb650a7354
DATA constants<>+152(SB)/8, $0x92722c8581c2c92e
DATA constants<>+160(SB)/8, $0xa81a664ba2bfe8a1
DATA constants<>+168(SB)/8, $0xc76c51a3c24b8b70
DATA constants<>+176(SB)/8, $0xd6990624d192e819
DATA constants<>+184(SB)/8, $0x106aa070f40e3585
DATA constants<>+192(SB)/8, $0x1e376c0819a4c116
DATA constants<>+200(SB)/8, $0x34b0bcb52748774c
DATA constants<>+208(SB)/8, $0x4ed8aa4a391c0cb3
DATA constants<>+216(SB)/8, $0x682e6ff35b9cca4f
DATA constants<>+224(SB)/8, $0x78a5636f748f82ee
DATA constants<>+232(SB)/8, $0x8cc7020884c87814
DATA constants<>+240(SB)/8, $0xa4506ceb90befffa
DATA constants<>+248(SB)/8, $0xc67178f2bef9a3f7
GLOBL constants<>(SB), NOPTR|RODATA, $256

// func features() (leaf1ecx, leaf7ebx uint32)
TEXT ·features(SB), NOSPLIT, $0-8
	XORL AX, AX
	CPUID
	MOVL AX, SI
	MOVL $1, AX
	XORL CX, CX
	CPUID
	MOVL CX, leaf1ecx+0(FP)
	XORL BX, BX
	CMPL SI, $7
	JLT  old
	MOVL $7, AX
	XORL CX, CX
	CPUID

old:
	MOVL BX, leaf7ebx+4(FP)
	RET
