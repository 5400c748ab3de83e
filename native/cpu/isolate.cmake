# Links the objects of one ISA into one and makes every symbol local but the register functions, then checks that.
# Why: std::vector and friends leave weak copies in every object; the linker keeps one of them for the whole program, and
# if it is the copy compiled with AVX-512 the addon dies on a machine without it.
string(REPLACE "|" ";" OBJECTS "${OBJECTS}")
execute_process(COMMAND ${LINKER} -r --force-group-allocation -o ${OUT}.tmp ${OBJECTS} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${OBJCOPY} --wildcard "--keep-global-symbol=_ZN6tandem*register_${ISA}_*Ev" ${OUT}.tmp ${OUT}
                COMMAND_ERROR_IS_FATAL ANY)
file(REMOVE ${OUT}.tmp)
execute_process(COMMAND ${NM} --defined-only --extern-only --format=posix ${OUT} OUTPUT_VARIABLE SYMBOLS COMMAND_ERROR_IS_FATAL ANY)
string(REGEX REPLACE "[^\n]*register_${ISA}_[^\n]*\n" "" LEAKED "${SYMBOLS}")
if(NOT LEAKED STREQUAL "")
  file(REMOVE ${OUT})
  message(FATAL_ERROR "symbols compiled for ${ISA} would leak into the rest of the program:\n${LEAKED}")
endif()
