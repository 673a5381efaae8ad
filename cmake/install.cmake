# A packager's whole way: configure with a prefix, build, `cmake --install`.

foreach(program personad persona personad-bench)
  if(TARGET ${program})
    install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endforeach()

if(TARGET personad_cuda)
  install(TARGETS personad_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/personad)
endif()

if(TARGET personad_client)
  install(TARGETS personad_client personad_client_shared
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(DIRECTORY clients/c/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
    FILES_MATCHING PATTERN "*.h")
  configure_file(cmake/personad_client.pc.in personad_client.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/personad_client.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()

file(GLOB personas CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/personas/*.json)
install(FILES ${personas} DESTINATION ${CMAKE_INSTALL_DATADIR}/personad/personas)

foreach(section 1 5 8)
  file(GLOB pages CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/man/*.${section})
  install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()
