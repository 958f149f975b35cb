// The packed matrix in `words`: its codes, row by row, then its scales. BITS, `words`, and `params` with `rows` and
// `columns` are the kernel's. The layout is that of src/quant/layout.rs.

// Codes in a word.
const PER_WORD: u32 = 32u / BITS;

fn words_per_row() -> u32 {
    return (params.columns + PER_WORD - 1u) / PER_WORD;
}

// The number whose f16 bits are the low half of `bits`. By hand: drivers may take subnormal numbers for 0.
fn half_to_f32(bits: u32) -> f32 {
    let magnitude = bits & 0x7fffu;
    let normal = bitcast<f32>((magnitude << 13u) + 0x38000000u);
    let subnormal = f32(magnitude) * 0x1p-24;
    let value = select(normal, subnormal, magnitude < 0x400u);
    return select(value, -value, (bits & 0x8000u) != 0u);
}

// Code `i` of a word, not yet scaled.
fn code(word: u32, i: u32) -> f32 {
    if BITS == 32u {
        return bitcast<f32>(word);
    }
    if BITS == 16u {
        return half_to_f32(word >> (16u * i));
    }
    // To the top, and back with the sign.
    return f32(bitcast<i32>(word << (32u - BITS * (i + 1u))) >> (32u - BITS));
}

// The scale of the group that a column is in.
fn scale(row: u32, column: u32) -> f32 {
    if BITS >= 16u {
        return 1.0;
    }
    var index = row;
    if BITS < 8u {
        index = row * ((params.columns + 63u) / 64u) + column / 64u;
    }
    let pair = words[params.rows * words_per_row() + index / 2u];
    return half_to_f32(pair >> (16u * (index % 2u)));
}
