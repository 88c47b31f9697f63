-- unescape: JSON text with \uXXXX beyond ASCII as UTF-8. ASCII stays escaped: it may be a quote.
local function character(found)
  local high, low = found:match("^\\u(%x%x%x%x)\\u(%x%x%x%x)$")
  local code = tonumber(high or found:match("^\\u(%x%x%x%x)$") or "0", 16)
  if high then
    code = 0x10000 + (code - 0xD800) * 0x400 + (tonumber(low, 16) - 0xDC00)
  end
  if code < 0x80 or (code >= 0xD800 and code < 0xE000) then
    return nil
  end
  return utf8.char(code)
end

core.register_converters("unescape", function(text)
  -- A backslash that is itself escaped begins nothing.
  text = text:gsub("\\\\", "\\u005c")
  text = text:gsub("\\u[dD][89abAB]%x%x\\u[dD][c-fC-F]%x%x", character)
  return (text:gsub("\\u%x%x%x%x", character))
end)
