-- marked: JSON text without \u and \/, for HAProxy's reader.
-- Where the backslash is itself escaped, what comes out begins with the escape \b, and no longer with the letter:
-- a name can be had back.
local marks = { ["\\u"] = "b\1", ["\\/"] = "b\2" }
core.register_converters("marked", function(text)
  return (text:gsub("\\[u/]", marks))
end)

local function character(high, low)
  local code = tonumber(high, 16)
  if low then
    code = 0x10000 + (code - 0xD800) * 0x400 + (tonumber(low, 16) - 0xDC00)
  end
  if code == 0 or (code >= 0xD800 and code < 0xE000) then
    return nil
  end
  return utf8.char(code)
end

-- unmarked: what a marked string says, as UTF-8. For short strings alone: this is slow.
core.register_converters("unmarked", function(text)
  text = text:gsub("b\1([dD][89abAB]%x%x)b\1([dD][c-fC-F]%x%x)", character)
  text = text:gsub("b\1(%x%x%x%x)", character)
  return (text:gsub("b\2", "/"):gsub("\b\1", "\\u"):gsub("\b\2", "\\/"))
end)
